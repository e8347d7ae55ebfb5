#!/usr/bin/env bash
# Checks docker/ where no container engine runs: lints compose.yaml, takes the Dockerfile's steps in a clean virtual
# environment, and runs the installed commands from an empty folder.
# Usage, after `make test`: docker/check.sh    (PYTHON=... chooses another CPython 3.11)
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
python="${PYTHON:-python3.11}"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/src" "$work/empty"
say() { printf '\n== %s\n' "$*"; }

say "compose.yaml"
yamllint="$(command -v yamllint || echo "$root/.venv/bin/yamllint")"
"$yamllint" --strict -c .yamllint.yaml docker/compose.yaml
if docker compose version >/dev/null 2>&1; then
  docker compose -f docker/compose.yaml config --quiet
else
  echo "docker compose is not here: its own check of compose.yaml is left out"
fi

say "what the Dockerfile copies"
sed -n 's/^COPY \([^-].*\) \([^ ]*\)$/\1|\2/p' docker/Dockerfile | while IFS='|' read -r from to; do
  mkdir -p "$work/src/$(dirname "$to/.")"
  for path in $from; do
    if [ -d "$path" ]; then cp -R "$path/." "$work/src/$to"; else cp "$path" "$work/src/$to"; fi
    echo "$path"
  done
done

say "its pip step, in a clean virtual environment"
"$python" -m venv "$work/venv"
cd "$work/src"
"$work/venv/bin/pip" --disable-pip-version-check -q install --no-cache-dir -c requirements/constraints.txt '.[worker]'

say "no torch"
cd "$work/empty"
"$work/venv/bin/python" - <<'CODE'
import importlib.util
import sys

found = [name for name in ("torch", "transformers", "training") if importlib.util.find_spec(name)]
sys.exit(f"installed, and must not be: {found}" if found else 0)
CODE

say "everpin doctor and everpin settings, from an empty folder"
clean=(env -i "PATH=$work/venv/bin:/usr/bin:/bin" "HOME=$work/empty")
"${clean[@]}" everpin doctor --json
"${clean[@]}" everpin settings
"${clean[@]}" everpin settings --json >/dev/null

say "the API and its page are installed"
"${clean[@]}" python - <<'CODE'
from pathlib import Path

import surfaces.app

page = Path(surfaces.app.WEB)
assert page.is_relative_to(Path(surfaces.app.__file__).parent), page
missing = [name for name in ("index.html", "main.js", "style.css") if not (page / name).exists()]
assert not missing, f"not installed: {missing}"
print(sum(1 for _ in page.iterdir()), "files of the page")
CODE

say "the feature store file that compose.yaml names"
yaml="$(sed -n 's/.*EVERPIN_FEAST_YAML: *//p' "$root/docker/compose.yaml" | sort -u)"
test -f "$work/venv${yaml#/opt/everpin}" && echo "$yaml"
say "all well"
