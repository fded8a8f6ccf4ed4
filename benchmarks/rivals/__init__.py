"""What ktrdr is compared with, at its best: each does the same work on the same payload."""
