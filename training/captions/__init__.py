"""Captions for pins without one: their images and the journal of a run. `training.caption` makes them."""
