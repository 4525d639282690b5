"""The scenarios of tests/gateway/test_limits.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_limits import *  # noqa: F403
