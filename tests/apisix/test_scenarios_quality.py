"""The scenarios of tests/gateway/test_quality.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_quality import *  # noqa: F403
