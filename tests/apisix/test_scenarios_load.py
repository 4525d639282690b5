"""The scenarios of tests/gateway/test_load.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_load import *  # noqa: F403
