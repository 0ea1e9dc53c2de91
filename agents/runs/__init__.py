"""Runs of trainings and searches: record, settings, summary."""
