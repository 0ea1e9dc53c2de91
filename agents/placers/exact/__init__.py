"""Placers that prove the optimum, and the programs and bounds that they solve."""
