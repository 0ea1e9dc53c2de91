"""Benchmarks of the environment's speed and of the placers' quality."""
