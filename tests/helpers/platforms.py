"""Marks for tests of what not every operating system has."""

from __future__ import annotations

import os
import sys

import pytest

WINDOWS = sys.platform == "win32"
needs_signals = pytest.mark.skipif(WINDOWS, reason="Windows can't send such signals")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_limits = pytest.mark.skipif(WINDOWS, reason="Windows has no limits of this kind")
