"""Training runs on disk: what survives a crash."""
