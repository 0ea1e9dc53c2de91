"""Training of the pretrained placer on generated problems."""
