"""Documents, and what draws and generates parts of them; not part of what is installed."""
