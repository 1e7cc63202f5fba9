"""Training: compiled steps, the training loop, and resuming of interrupted runs."""
