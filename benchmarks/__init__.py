"""Measures this service beside others: one command, one run, the same machine and the same texts."""
