"""What can be typed: one module per command group, light to import."""
