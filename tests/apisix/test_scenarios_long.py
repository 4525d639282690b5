"""The scenarios of tests/gateway/test_long.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_long import *  # noqa: F403
