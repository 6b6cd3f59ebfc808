"""Where tests that roll dice have their seed from."""

from __future__ import annotations

import os
import random


def drawn_seed() -> int:
    """A new seed, printed; that of HFT_TEST_SEED where a run is to be repeated."""
    seed = int(os.environ.get("HFT_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed {seed}: HFT_TEST_SEED={seed} repeats it")
    return seed
