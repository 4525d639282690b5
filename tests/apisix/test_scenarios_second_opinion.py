"""The scenarios of tests/gateway/test_second_opinion.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_second_opinion import *  # noqa: F403
