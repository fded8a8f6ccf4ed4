"""The process clients talk to."""
