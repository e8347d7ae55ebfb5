#!/usr/bin/env bash
# Prepare a Debian machine for the tests that need real services: redis-server, Java 17, Maven, promtool (package
# prometheus) and Chromium through apt-get where they are missing, and Apache Kafka's jars in the cache. Safe to run again.
# Usage, from the repository root: .ci/services.sh .venv/bin/python
set -euo pipefail

python="${1:?usage: .ci/services.sh PYTHON (of the environment with the test requirements)}"
cd "$(dirname "$0")/.."

java_is_new_enough() {
  local major
  major="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)"
  [ "${major:-0}" -ge 17 ]
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
java_is_new_enough || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v promtool >/dev/null || missing+=(prometheus)
command -v chromium >/dev/null || missing+=(chromium)

if [ "${#missing[@]}" -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  # The tests start their own Redis on a free port, and of Prometheus they need promtool: no package may start its daemon.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
  fi
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

"$python" -m tests.services.kafka --warm
