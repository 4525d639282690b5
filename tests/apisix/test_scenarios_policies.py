"""The scenarios of tests/gateway/test_policies.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_policies import *  # noqa: F403
