"""What two or more ktrdr processes use."""
