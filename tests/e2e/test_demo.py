"""`everpin demo --json`: the whole system, from nothing, in one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_ends_by_itself_with_the_promised_document(tmp_path: Path) -> None:
    environment = {**os.environ, "EVERPIN_HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-m", "everpin.cli", "demo", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert {"pins", "outcomes", "freshness_ms", "searches", "related", "home_feed", "dead_letters", "encoder_calls"} <= set(body)
    outcomes = body["outcomes"]
    assert body["pins"] == outcomes["new"] - 4, "402 sample pins and 12 new ones, 4 of them deleted"
    assert outcomes["new"] == 414
    assert body["dead_letters"] == 4
    assert body["encoder_calls"] == outcomes["new"] + outcomes["text_changed"]
    assert {"unchanged", "deleted", "payload_only", "same_tokens"} <= set(outcomes)
    assert 0 < body["freshness_ms"]["p50"] <= body["freshness_ms"]["p99"] < 10_000
    assert len(body["searches"]) == 3
    assert all(result["level"] in range(1, 6) for search in body["searches"] for result in search["results"])
    assert len(body["related"]) == 5
    assert len(body["home_feed"]) == 6
    assert {result["model_id"] for result in body["related"]} == {body["model_id"]}
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout, "a process stayed behind"
