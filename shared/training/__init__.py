"""The one training code of every process that trains."""
