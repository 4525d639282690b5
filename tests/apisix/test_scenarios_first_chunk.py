"""The scenarios of tests/gateway/test_first_chunk.py, on the stand-in for APISIX."""

from test_first_chunk import *  # noqa: F403
