"""The scenarios of tests/gateway/test_money.py, on the stand-in for APISIX."""

from test_money import *  # noqa: F403
