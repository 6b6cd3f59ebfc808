"""Failed connections in a few words, whatever the libraries wrap around them."""

from __future__ import annotations

import socket
import ssl

import pytest

from hft_otel._failures import connection_failure


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("https://user:secret@host/path") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (ssl.SSLCertVerificationError(1, "[SSL] expired"), "[SSL] expired"),
        (ConnectionResetError(), "ConnectionResetError"),
        (ValueError("https://user:secret@host"), "ValueError"),
    ],
)
def test_what_the_system_said_is_what_is_told(error: Exception, said: str) -> None:
    assert connection_failure(error) == connection_failure(wrapped(error)) == said
