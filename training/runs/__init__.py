"""The pipeline in order: `smoke.sh` on a toy slice in minutes, `full.sh` for the student that is published."""
