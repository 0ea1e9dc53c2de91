"""Hardware profiles measured on this machine: op times, random placements, a fit."""
