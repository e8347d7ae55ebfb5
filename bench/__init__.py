"""Benchmarks: one script each, a committed JSON result, and a line in README.md. Run nothing beside them."""
