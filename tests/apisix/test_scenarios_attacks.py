"""The scenarios of tests/gateway/test_attacks.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_attacks import *  # noqa: F403
