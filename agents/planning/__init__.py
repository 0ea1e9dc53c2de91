"""Costs learnt from the times of whole placements, and searches that know costs."""
