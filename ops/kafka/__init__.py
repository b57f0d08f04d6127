"""Real Apache Kafka brokers without Docker: for tests, and for a look on one's own machine."""
