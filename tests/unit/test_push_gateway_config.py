"""Where measurements are pushed to: the addresses that can work pass, others are told when the logger is made."""

from __future__ import annotations

import pytest

from hft_otel import ConfigError, LogConfig
from hft_otel._validation import validate


def check(**options: object) -> None:
    validate(LogConfig.from_dict({"backends": {"prometheus": options}}))


@pytest.mark.parametrize(
    "address",
    [
        "localhost:9091",
        "prometheus-gateway:9091",
        "push_gateway",
        "gateway/behind/a/proxy",
        "[::1]:9091",
        "http://gateway:9091/prefix",
        "HTTPS://gateway",
        "us%40er:hunter%2F2@gateway:9091",
        "https://user:hunter2@gateway",
        "",
        None,
    ],
)
def test_address_that_the_client_can_push_to_passes(address: str | None) -> None:
    check(push_gateway=address)


@pytest.mark.parametrize(
    "address",
    ["not a url", "http://h:99999/x", "h:99999", "h:port", "ftp://h", "http://", "http:///x", "//h", " "],
)
def test_address_that_is_none_is_an_error(address: str) -> None:
    with pytest.raises(ConfigError, match="expected a URL") as raised:
        check(push_gateway=address)
    assert "backends.prometheus.config.push_gateway" in str(raised.value)
    assert address in str(raised.value)


@pytest.mark.parametrize(
    "address",
    ["http://user:hunter2@h:99999", "user:hunter2@not a url", "http://user:hunter2/x@h", "ftp://u:hunter2@h"],
)
def test_password_in_an_address_that_is_none_is_not_shown(address: str) -> None:
    with pytest.raises(ConfigError, match="may hold a password") as raised:
        check(push_gateway=address)
    assert "hunter" not in str(raised.value)


@pytest.mark.parametrize("job_name", ["", " "])
def test_push_needs_a_job_name(job_name: str) -> None:
    with pytest.raises(ConfigError, match="is empty") as raised:
        check(push_gateway="gateway:9091", job_name=job_name)
    assert "backends.prometheus.config.job_name" in str(raised.value)
    check(job_name=job_name)  # nothing is pushed


def test_what_is_not_enabled_may_be_anything() -> None:
    check(enabled=False, push_gateway="not a url", job_name="")


def test_host_with_a_space_is_none_for_other_backends_either() -> None:
    with pytest.raises(ConfigError, match="expected a URL"):
        validate(LogConfig.from_dict({"backends": {"webhook": {"url": "http://not a host/"}}}))
