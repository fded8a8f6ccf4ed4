"""The pictures of the documents, drawn from Python: `make diagrams`."""
