"""The scenarios of tests/gateway/test_smoke.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_smoke import *  # noqa: F403
