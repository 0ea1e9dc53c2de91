"""Repair of placements that break constraints."""
