"""The core: what a pin is, what an event means, when a vector must change. No I/O, no clock, no environment."""
