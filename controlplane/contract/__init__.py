"""The types that travel between processes, their rules and their JSON. Knows nothing of I/O, sites or fleets."""
