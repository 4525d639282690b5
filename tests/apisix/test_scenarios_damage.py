"""The scenarios of tests/gateway/test_damage.py, on the stand-in for APISIX."""

from test_damage import *  # noqa: F403
