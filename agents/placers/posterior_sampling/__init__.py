"""Posterior sampling: learn costs from the times of whole placements, and plan with them."""
