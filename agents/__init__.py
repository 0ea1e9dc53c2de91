"""Agents that learn placements: feature extractors, presets, training and placers."""
