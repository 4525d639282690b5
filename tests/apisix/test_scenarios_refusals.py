"""The scenarios of tests/gateway/test_refusals.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_refusals import *  # noqa: F403
