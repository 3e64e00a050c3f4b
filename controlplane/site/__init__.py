"""What one site decides: pure values in, pure values out. Knows nothing of I/O, of time, or of the fleet."""
