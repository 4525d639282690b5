"""The scenarios of tests/gateway/test_edges.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_edges import *  # noqa: F403
