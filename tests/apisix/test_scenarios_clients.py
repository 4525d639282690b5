"""The scenarios of tests/gateway/test_clients.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_clients import *  # noqa: F403
