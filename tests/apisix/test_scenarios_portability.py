"""The scenarios of tests/gateway/test_portability.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_portability import *  # noqa: F403
