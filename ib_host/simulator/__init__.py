"""A TWS that needs no account: speaks the TWS socket protocol to unmodified clients."""
