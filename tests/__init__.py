"""Everpin's tests, a package so that `tests.services` can be imported from the repository root."""
