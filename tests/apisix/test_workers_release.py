"""The scenarios of tests/gateway/test_release.py, on a stand-in with three workers."""

from test_release import *  # noqa: F403
from workers import *  # noqa: F403
