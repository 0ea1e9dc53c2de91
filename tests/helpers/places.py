"""Folders of the tests."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).parent
