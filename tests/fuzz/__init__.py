"""Fuzzing: what any bytes, from anyone, must not be able to do. See docs/fuzzing.md."""
