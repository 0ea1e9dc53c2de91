"""Executors: run a placed model, its regions side by side (dataflow) or in turn (hetero)."""

AUTO, HETERO, DATAFLOW = "auto", "hetero", "dataflow"
EXECUTORS = dict.fromkeys((AUTO, HETERO, DATAFLOW))
