"""Load on the serving process: `python -m bench.load`. What is measured and how is in `__main__`."""
