"""Simulated placements: costs, schedules, hardware profiles and workloads."""
