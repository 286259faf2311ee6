"""Hypothesis draws the same cases in every run, so that a change alone decides whether the tests pass.

SSLNET_TEST_RANDOM=1 draws new ones each time: what such a run finds becomes a bug mended and a test of its own.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None, print_blob=True)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if os.environ.get("SSLNET_TEST_RANDOM") else "same")
