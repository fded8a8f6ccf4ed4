"""What several tests use: clocks, fakes and waiting."""
