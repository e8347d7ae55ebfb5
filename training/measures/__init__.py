"""How answers are measured and shown: scorers, figures with intervals, agreement with people, the report. `training.evaluate` runs it."""
