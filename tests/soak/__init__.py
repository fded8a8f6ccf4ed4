"""The soak: all kinds of work and every fault at once, for minutes, and what must hold."""
