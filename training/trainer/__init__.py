"""The trainer: model, adapters, steps, checkpoints, and workers on Ray Train."""
