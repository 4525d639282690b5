"""The scenarios of tests/gateway/test_smoke.py, on a stand-in with three workers."""

from test_smoke import *  # noqa: F403
from workers import *  # noqa: F403
