"""The references: Markdown generated from the contract and from docstrings, `make reference`."""
