"""The revisions of the database, oldest first; each knows the one before it."""
