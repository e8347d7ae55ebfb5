"""The drift predictor of the change decision: edits, its model and figures. `training.calibrate_drift` fits it."""
