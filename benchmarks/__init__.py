"""Benchmarks: what the environment costs and how good the placers are."""
