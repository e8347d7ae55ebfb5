"""Settings, wiring, telemetry and the command line of Everpin."""

__version__ = "0.1.0"
