"""Exact placers, with the constraint program and the bounds that they use."""
