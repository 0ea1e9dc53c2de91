"""Executors: run a placed model, its regions side by side (dataflow) or in turn (hetero)."""
