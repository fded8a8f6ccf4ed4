"""How a process is monitored: what it counts, and where others may read it."""
