"""The scenarios of tests/gateway/test_history.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_history import *  # noqa: F403
