"""Training of agents: algorithms, callbacks, checkpoints and policy files."""
