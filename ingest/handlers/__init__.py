"""Legacy synchronous code: loading `handlers/<type>.py` and running it for events."""
