"""Steps of the command `optimize`: from a model to a faster one."""
