"""Where accepted events go beside the journal; see docs/kafka.md."""
