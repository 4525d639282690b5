"""The scenarios of tests/gateway/test_release.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_release import *  # noqa: F403
