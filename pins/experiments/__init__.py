"""Experiments: which of two students serves people better, read from what they were shown and what they did. Standard library and numpy only.

`exposures` is the wire, `joining` brings actions to what was shown, `metrics` sums them per unit, `statistics` compares the sums, `verdict` says it
in words. `interleaving` is the more sensitive mode. `clickmodel` and `simulation` plant lifts and nulls, to test all of the others.
"""
