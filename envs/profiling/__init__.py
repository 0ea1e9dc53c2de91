"""Profiles measured on this machine: op times, and the fit of what else costs time."""
