"""A threaded Flask service before and after its move to handlers, and what that gains."""
