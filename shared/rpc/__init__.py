"""Everything gRPC that is not about a domain."""
