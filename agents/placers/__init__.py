"""Placers: anything that searches for a placement with an evaluator and a budget."""
