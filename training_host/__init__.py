"""The training host: trains models, on a machine of its own if need be."""
