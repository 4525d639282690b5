"""The scenarios of tests/gateway/test_schema.py, on the stand-in for APISIX. What differs there is in differences.py."""

from test_schema import *  # noqa: F403
