"""Photos: reading, selecting, preparing, and the batches of an epoch."""
