"""How far the tests with drawn input (hypothesis) look: a glance by default, `make test` then hunts with `thorough`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=240, deadline=None)
settings.load_profile("quick")
