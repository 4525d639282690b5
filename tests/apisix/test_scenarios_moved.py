"""The scenarios of tests/gateway/test_moved.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_moved import *  # noqa: F403
