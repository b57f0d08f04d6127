"""Who is let in when there is more to do than can be done; see docs/overload.md."""
