#!/bin/sh
# What produced the published student and every figure of training/LOG.md that it names: teacher -> labels -> students -> figures ->
# exports. About four hours on two cores, none of it on a GPU. Every step that is done stays done: give the same command again.
# Usage: make training && PATH=.venv/bin:$PATH sh training/runs/full.sh DATA OUT     (DATA holds cxc_pins/, parallel/, captions/, sources.json)
set -eu
data=${1:?give the folder that holds cxc_pins/, parallel/, captions/ and sources.json}
out=${2:?give a folder for everything that is made}
recipes=training/configs
work=$out/work
mkdir -p "$work"

python -m training.train_teacher --config $recipes/teacher-features.toml --data "$data" --out "$out/teacher"

# Queries and captions of pictures, and translated ones whose English the teacher reads.
python -m training.label --teacher "$out/teacher" --data "$data/cxc_pins" --sources "$data/sources.json" \
  --log "$data/captions/queries_en.parquet" "$data/captions/captions_other_en.parquet" "$data"/parallel/de.parquet "$data"/parallel/es.parquet \
  "$data"/parallel/id.parquet "$data"/parallel/ja.parquet "$data"/parallel/ru.parquet "$data"/parallel/tr.parquet "$data"/parallel/zh.parquet \
  --only-sources nlvr2,nlvr2_image_search,wit,esci_test_queries,xgqa,nlvr2_mt,marvl_native_mt,wit_native_mt,stsb_mt \
  --index everpin/models/minilm-l6-v1 --through-english --per-query 16 --limit 28000 --out "$out/labels"

student() { # name, recipe, further arguments
  name=$1 recipe=$2
  shift 2
  [ -f "$out/$name/student.json" ] || python -m training.train_student --config "$recipes/$recipe.toml" --data "$data" --labels "$out/labels" \
    --out "$out/$name" --work "$work" "$@"
  [ -f "$out/reports/$name/evaluation.json" ] || python -m training.evaluate "$out/$name" --data "$data/cxc_pins" --baseline everpin/models/minilm-l6-v1 \
    --report "$out/reports/$name"
}
student static student-static
student l6 student-l6
student l3 student-l3
student static-unseen student-static-unseen
student l6-unseen student-l6-unseen
for loss in none kl margin_mse; do
  student "static-$loss" student-static --relevance "$loss"
done

if [ ! -f "$out/static-people/student.json" ]; then # people's grades instead of the teacher's labels
  python -m training.train_student --config $recipes/student-static.toml --data "$data" --out "$out/static-people" --work "$work"
  python -m training.evaluate "$out/static-people" --data "$data/cxc_pins" --baseline everpin/models/minilm-l6-v1 --report "$out/reports/static-people"
fi

for size in 256 128 64; do
  [ -f "$out/reports/l6-$size/evaluation.json" ] || python -m training.evaluate "$out/l6" --data "$data/cxc_pins" --dimension "$size" --report "$out/reports/l6-$size"
done

# The bi-encoder plus match features: the network of the teacher, on the student's own vectors and all languages.
sed "s|^encoder = .*|encoder = \"$out/l6\"|; s|^name = .*|name = \"match-features\"|; s|^languages = .*|languages = []|" $recipes/teacher-features.toml > "$work/match.toml"
python -m training.train_teacher --config "$work/match.toml" --data "$data" --out "$out/match"
python -m training.scoring "$out/l6" --data "$data/cxc_pins" --match "$out/match" --out "$out/reports/scoring.json"

mkdir -p "$work/scaling"
ln -sfn "$(cd "$work" && pwd)" "$work/scaling/shared" # vocabulary, targets and table are those of the students above
python -m training.scaling --labels "$out/labels" --data "$data/cxc_pins" --config $recipes/student-static.toml --points 1000,8000,64000,448000 \
  --beside "$out/teacher" everpin/models/minilm-l6-v1 --out "$out/reports/scaling.json" --work "$work/scaling"

for name in l6 l3 static; do
  python -m training.export --source "$out/$name" --precision int8 --check "$data/cxc_pins" --fp32 "$out/everpin-$name-fp32" --model-id "everpin-$name-v1" --out "$out/everpin-$name-v1"
done
model=$out/everpin-l6-v1
python -m training.calibrate_levels --model "$model" --pins "$data/cxc_pins" --report "$out/reports/levels.json"
python -m training.calibrate_drift --model "$model" --pins "$data/cxc_pins" --queries "$data/captions/queries_en.parquet" \
  --sample everpin/sample/pins.jsonl --report "$out/reports/drift"
python -m training.ablation --student "$model" --teacher "$out/teacher" --data "$data/cxc_pins" --most-groups 120 --samples 500 --out "$out/reports"
base=everpin/models/minilm-l6-v1
python -m training.evaluate "$model" --data "$data/cxc_pins" --baseline $base --teacher "$out/teacher" --report "$out/reports/published" --json > "$out/published.json"
python -m training.evaluate $base --data "$data/cxc_pins" --json > "$out/base.json"
python -m training.publish "$model" --card --notice "$data/NOTICE-parallel-captions.md" --evaluation "$out/published.json" --default "$out/base.json" --mlflow "sqlite:///$out/mlflow.db"
everpin model verify "$model"
echo "$out: teacher, labels, students, reports, and the published folder $model"
