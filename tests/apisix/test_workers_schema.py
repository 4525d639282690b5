"""The scenarios of tests/gateway/test_schema.py, on a stand-in with three workers."""

from test_schema import *  # noqa: F403
from workers import *  # noqa: F403
