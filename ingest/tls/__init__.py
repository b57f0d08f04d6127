"""TLS of the main listener: certificates, handshakes, and what a connection reads and writes."""
