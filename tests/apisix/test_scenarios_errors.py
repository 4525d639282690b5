"""The scenarios of tests/gateway/test_errors.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_errors import *  # noqa: F403
