"""Unit tests: pure tables and properties, on fakes alone."""
