"""Hypothesis for busy machines: no deadline per example, and as many examples as EVERPIN_TEST_EXAMPLES says."""

import os

from hypothesis import settings

settings.register_profile("everpin", deadline=None, max_examples=int(os.environ.get("EVERPIN_TEST_EXAMPLES", "60")))
settings.load_profile("everpin")
