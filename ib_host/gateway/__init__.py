"""The gateway: IB's client library on a thread and an event loop of its own."""
