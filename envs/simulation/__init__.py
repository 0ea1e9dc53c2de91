"""Simulated placements: schedules, hardware profiles, workloads and their evaluator."""
