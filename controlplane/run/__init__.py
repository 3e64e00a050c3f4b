"""The loops that wire the pure cores to the edges. No rule of its own stands here."""
