"""The scenarios of tests/gateway/test_outcomes.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_outcomes import *  # noqa: F403
