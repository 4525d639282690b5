"""The scenarios of tests/gateway/test_endpoints.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_endpoints import *  # noqa: F403
