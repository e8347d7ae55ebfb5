"""The training pipeline, with torch. Skipped where the training extra is not installed."""
