"""Policies: graph neural networks, feature extractors and distributions of placements."""
