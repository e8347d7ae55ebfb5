"""What labelling is made of: queries, candidates, the plan of a run and its shards. `training.label` runs it."""
