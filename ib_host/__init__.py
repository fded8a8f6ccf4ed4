"""The IB host: market data of Interactive Brokers, loaded on a machine of its own if need be."""
