"""Long-running operations: written to by workers, read when somebody asks."""
