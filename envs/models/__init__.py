"""Models: loading, normalisation, and those that are bundled."""
