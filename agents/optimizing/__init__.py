"""From a model to a faster one: the steps of the command `optimize`."""
