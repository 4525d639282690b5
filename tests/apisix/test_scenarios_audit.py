"""The scenarios of tests/gateway/test_audit.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_audit import *  # noqa: F403
