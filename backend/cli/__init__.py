"""The `ktrdr` command, a client like any other."""
