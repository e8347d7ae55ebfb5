"""Shared by every suite: the real services, skipped on a laptop without them and failing in CI."""

pytest_plugins = ["tests.services.fixtures"]
