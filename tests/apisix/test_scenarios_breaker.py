"""The scenarios of tests/gateway/test_breaker.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_breaker import *  # noqa: F403
