"""The scenarios of tests/gateway/test_traces.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_traces import *  # noqa: F403
