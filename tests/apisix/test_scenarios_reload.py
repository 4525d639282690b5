"""The scenarios of tests/gateway/test_reload.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_reload import *  # noqa: F403
