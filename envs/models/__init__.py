"""Models: loading, normalisation and the bundled zoo."""
