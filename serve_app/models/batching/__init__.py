"""Token-budget batching: which waiting texts form the next micro-batch."""
