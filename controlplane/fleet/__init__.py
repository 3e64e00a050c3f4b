"""What a coordinator decides about all sites: pure values in, pure values out. Knows nothing of I/O or of time."""
