"""The training pipeline: torch and transformers live here and nowhere else. Nothing imports this package.

Read in order: `source` (weights in), `graph` and `int8` (torch to ONNX), `golden` (reference vectors), `export` (the
model folder), `calibrate_drift` and `calibrate_levels` (what the folder promises). `publish_minilm.sh` runs them all.
"""
