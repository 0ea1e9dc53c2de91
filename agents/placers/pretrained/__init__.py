"""Placer with a policy that has learned on generated problems; its weights are in the package."""
