"""The metrics service: turns events into exact counters in PostgreSQL and renders them for Prometheus."""
