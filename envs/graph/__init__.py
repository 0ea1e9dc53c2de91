"""Computation graphs: reading, FLOPs, coarsening into groups, features of groups."""
