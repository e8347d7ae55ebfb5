#!/bin/sh
# Every stage on a toy slice, in minutes on two cores: teacher -> labels -> student -> evaluation -> export -> published folder,
# which the worker's own code then opens. Figures say that the stages fit together, nothing about quality.
# Usage: sh training/runs/smoke.sh OUT [SEED]     (needs `make training`; run it from the repository with .venv/bin in PATH)
set -eu
out=${1:?give a folder for everything that is made}
seed=${2:-7}
here=$(dirname "$0")
mkdir -p "$out"
python -m training.runs.toy "$out/data" --seed "$seed"
python -m training.train_teacher --config "$here/smoke-teacher.toml" --data "$out/data/toy" --out "$out/teacher" --seed "$seed"
python -m training.label --teacher "$out/teacher" --data "$out/data/toy" --languages en,xx --through-english --per-query 8 --out "$out/labels" --seed "$seed"
python -m training.train_student --config "$here/smoke-student.toml" --data "$out/data" --graded toy --labels "$out/labels" --out "$out/student" --seed "$seed"
python -m training.evaluate "$out/student" --data "$out/data/toy" --baseline everpin/models/minilm-l6-v1 --samples 200 --seed "$seed" --report "$out/report" --json > "$out/evaluation.json"
python -m training.export --source "$out/student" --precision int8-weights --out "$out/everpin-smoke-v1"
python -m training.publish "$out/everpin-smoke-v1" --mlflow "sqlite:///$out/mlflow.db"
everpin model verify "$out/everpin-smoke-v1"
echo "$out: teacher, labels, student, report and published folder"
