"""The scenarios of tests/gateway/test_faults.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_faults import *  # noqa: F403
