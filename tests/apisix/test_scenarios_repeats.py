"""The scenarios of tests/gateway/test_repeats.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_repeats import *  # noqa: F403
