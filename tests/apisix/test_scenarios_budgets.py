"""The scenarios of tests/gateway/test_budgets.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_budgets import *  # noqa: F403
