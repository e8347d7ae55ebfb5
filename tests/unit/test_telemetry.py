"""The closed list of metrics, the wrappers that time calls, and what the routes answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

import pins.events
from everpin import http
from everpin.http import Vitals, listening, worker_app
from everpin.instruments import PROBE_PIN, probe, timed_encoder, timed_features, timed_index
from everpin.telemetry import DEAD_REASONS, METRICS, OPEN, STORES, TAKEN_TOPICS, Telemetry
from pins.changes import IndexedPin
from pins.errors import Unavailable, Unembeddable
from pins.features import FeatureRow
from pins.ports import PointWrite
from streams.broker import PARKED, UPDATES
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex
from tests.unit.samples import T0
from tests.unit.test_docs import REFUSALS


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("1.2.3", "m1")


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def test_every_metric_of_the_list_is_made_and_no_other(telemetry: Telemetry) -> None:
    made = {f"{m.name}{'_total' if m.type == 'counter' else ''}": (m.type, m.documentation) for m in telemetry.registry.collect()}
    assert made == {m.name: (m.kind, m.meaning) for m in METRICS}


def test_every_metric_says_what_it_counts_and_what_to_do() -> None:
    assert all(m.unit and m.meaning and m.do for m in METRICS)
    assert len({m.name for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert list(metric.buckets) == sorted(metric.buckets), metric.name


def test_every_value_of_a_closed_label_exists_from_the_start_at_zero(telemetry: Telemetry) -> None:
    """Prometheus sees no increase in a series that begins at 1, so the first dead letter would page nobody."""
    for metric in (m for m in METRICS if m.kind == "counter" and m.labels and OPEN not in m.labels.values()):
        for label, values in metric.labels.items():
            assert {value(telemetry, metric.name, **{label: one}) for one in values} == {0.0}, metric.name


def test_the_closed_lists_are_those_of_the_code() -> None:
    assert set(DEAD_REASONS) == pins.events.REASONS.keys() | pins.actions.REASONS.keys() | REFUSALS.keys()
    assert TAKEN_TOPICS == (UPDATES, PARKED)


def test_counts_by_label_leave_out_what_never_happened(telemetry: Telemetry) -> None:
    telemetry.pins.labels("new").inc(3)
    telemetry.pins.labels("stale").inc()
    assert telemetry.labelled(telemetry.pins) == {"new": 3, "stale": 1}
    assert telemetry.total(telemetry.pins) == 4
    assert telemetry.total(telemetry.retries) == 0


def test_freshness_percentiles(telemetry: Telemetry) -> None:
    assert telemetry.freshness_ms() == {"p50": None, "p99": None}
    telemetry.observe_freshness([0.1] * 99 + [0.3])
    assert telemetry.freshness_ms() == {"p50": 100.0, "p99": 102.0}
    assert value(telemetry, "everpin_freshness_seconds_count") == 100


def test_lag_of_a_lost_partition_vanishes(telemetry: Telemetry) -> None:
    telemetry.show_lag({(UPDATES, "0"): (5, 1.5, 40), (UPDATES, "1"): (0, 0.0, 7)})
    telemetry.show_lag({(UPDATES, "1"): (2, 0.5, 8)})
    assert value(telemetry, "everpin_lag_messages", topic=UPDATES, partition="0") is None
    assert value(telemetry, "everpin_committed_offset", topic=UPDATES, partition="0") is None
    assert value(telemetry, "everpin_lag_seconds", topic=UPDATES, partition="1") == 0.5


def test_points_by_state_are_set_anew(telemetry: Telemetry) -> None:
    telemetry.show_points("m1", {"live": 5, "dead": 2})
    telemetry.show_points("m1", {"live": 4, "textless": 1, "dead": 0, "something": 9})
    states = {state: value(telemetry, "everpin_points", model_id="m1", state=state) for state in ("live", "textless", "dead", "refused", "something")}
    assert states == {"live": 4, "textless": 1, "dead": 0, "refused": None, "something": None}


def test_the_exposition_is_one_text_with_the_metrics_of_others(telemetry: Telemetry) -> None:
    registry = CollectorRegistry()
    Counter("faust_things", "Things", registry=registry).inc()
    telemetry.include(registry)
    names = [family.name for family in text_string_to_metric_families(telemetry.exposition().decode())]
    assert names[-1] == "faust_things"
    assert len(names) == len(set(names)) == len(METRICS) + 1


def test_a_store_that_nobody_knows_is_refused(telemetry: Telemetry) -> None:
    with pytest.raises(KeyError, match="redis"):
        telemetry.answers("redis", False)


# --- the wrappers


class Down:
    """A store that does not answer, or refuses."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> Any:
            raise self.error

        return call


def row(pin_id: str = "p1") -> FeatureRow:
    return FeatureRow("pin_content", pin_id, T0, {"title": "a"})


def test_feature_calls_are_timed(telemetry: Telemetry) -> None:
    features = timed_features(FakeFeatures(), telemetry)
    features.write([row()])
    features.write([])
    assert features.of(["p1"]).keys() == {"p1"}
    assert list(features.history("u1")) == []
    assert value(telemetry, "everpin_feature_read_seconds_count") == 1
    assert value(telemetry, "everpin_feature_write_seconds_count") == 1


@pytest.mark.parametrize("wrap", [timed_features, timed_index])
def test_a_store_is_down_until_its_next_answer(telemetry: Telemetry, wrap: Any) -> None:
    store = "features" if wrap is timed_features else "index"
    good: Any = FakeFeatures() if wrap is timed_features else FakeIndex()
    ask = "of" if wrap is timed_features else "known"
    with pytest.raises(Unavailable, match="away"):
        getattr(wrap(Down(Unavailable("away")), telemetry), ask)(["p1"])
    assert value(telemetry, "everpin_store_up", store=store) == 0
    assert {name for name, up in telemetry.stores.items() if not up} == {store}
    getattr(wrap(good, telemetry), ask)(["p1"])
    assert value(telemetry, "everpin_store_up", store=store) == 1


def test_a_refusal_says_nothing_against_the_store(telemetry: Telemetry) -> None:
    with pytest.raises(Unembeddable):
        timed_index(Down(Unembeddable("point_refused", "no")), telemetry).write([])
    assert telemetry.stores == dict.fromkeys(STORES, True)
    assert telemetry.total(telemetry.index_write_retries) == 0


def test_encoding_is_timed_and_everything_else_passes_through(telemetry: Telemetry) -> None:
    encoder = timed_encoder(FakeEncoder(drift_threshold=0.25), telemetry)
    assert encoder.encode(["a", "b"]).shape == (2, encoder.dimension)
    assert (encoder.model_id, encoder.drift_threshold, encoder.same_tokens("a", "A")) == ("fake-v1", 0.25, True)
    assert value(telemetry, "everpin_encode_seconds_count") == 1
    assert value(telemetry, "everpin_encoder_queue") == 0
    with pytest.raises(Unembeddable):
        encoder.encode(["broken"])
    assert value(telemetry, "everpin_encode_seconds_count") == 2
    assert value(telemetry, "everpin_encoder_queue") == 0


def test_texts_in_the_encoder_are_its_queue(telemetry: Telemetry) -> None:
    seen: list[float | None] = []

    class Looking(FakeEncoder):
        def encode(self, texts: Any) -> Any:
            seen.append(value(telemetry, "everpin_encoder_queue"))
            return super().encode(texts)

    timed_encoder(Looking(), telemetry).encode(["a", "b", "c"])
    assert seen == [3]


def test_the_padded_tokens_of_each_run_are_observed_where_the_student_tells_them(telemetry: Telemetry) -> None:
    class Telling(FakeEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.on_run: Any = None

        def encode(self, texts: Any) -> Any:
            self.on_run(300)
            return super().encode(texts)

    timed_encoder(Telling(), telemetry).encode(["a"])
    assert value(telemetry, "everpin_encoder_batch_tokens_sum") == 300


def record(pin_id: str, v: int, **more: Any) -> IndexedPin:
    return IndexedPin(pin_id, v, dead=False, embedded=True, model_id="fake-v1", **more)


def test_index_calls_are_timed_and_lost_races_counted(telemetry: Telemetry) -> None:
    index = timed_index(FakeIndex(), telemetry)
    vector = FakeEncoder().query("a")
    first = PointWrite(record("p1", 1, embedded_at_us=T0 + 3_000_000, as_of={"pin_content": T0, "pin_boards": T0 + 1_000_000}), None, vector)
    assert index.write([first]) == {"p1"}
    assert index.write([PointWrite(record("p1", 2), 99, vector)]) == set()
    assert index.known(["p1"])["p1"].v == 1
    assert index.model_id == "fake-v1"
    assert telemetry.total(telemetry.races_lost) == 1
    assert value(telemetry, "everpin_index_write_seconds_count") == 2
    assert value(telemetry, "everpin_index_read_seconds_count") == 1
    assert value(telemetry, "everpin_feature_age_seconds_count") == 1
    assert value(telemetry, "everpin_feature_age_seconds_sum") == 2.0


def test_a_kept_vector_has_no_feature_age(telemetry: Telemetry) -> None:
    index = timed_index(FakeIndex(), telemetry)
    index.write([PointWrite(record("p1", 1, as_of={"pin_content": T0}), None, keep_vector=True)])
    assert value(telemetry, "everpin_feature_age_seconds_count") == 0


def test_a_write_to_an_absent_index_will_be_tried_again(telemetry: Telemetry) -> None:
    with pytest.raises(Unavailable):
        timed_index(Down(Unavailable("away")), telemetry).write([])
    assert telemetry.total(telemetry.index_write_retries) == 1


def test_a_probe_asks_both_stores_whatever_the_first_says(telemetry: Telemetry) -> None:
    asked: list[Any] = []

    class Index(FakeIndex):
        def known(self, pin_ids: Any) -> Any:
            asked.append(pin_ids)
            return super().known(pin_ids)

    telemetry.answers("index", False)
    probe(timed_features(Down(Unavailable("away")), telemetry), timed_index(Index(), telemetry))
    assert asked == [[PROBE_PIN]]
    assert telemetry.stores == {"features": False, "index": True, "kafka": True}


# --- the routes


@dataclass
class Parts:
    """As much of WorkerParts as the routes read."""

    telemetry: Telemetry
    settings: Any
    index: Any = field(default_factory=FakeIndex)
    encoder: Any = field(default_factory=lambda: SimpleNamespace(
        model_id="m1", manifest=SimpleNamespace(model_id="m1", files={"model.onnx": "abc"}, template_version=1)
    ))  # fmt: skip


@pytest.fixture
def parts(telemetry: Telemetry, tmp_path: Path) -> Parts:
    return Parts(telemetry, SimpleNamespace(home=tmp_path, retry_budget_s=60.0))


@pytest.fixture
def vitals() -> Vitals:
    return Vitals()


@pytest.fixture
def client(parts: Any, vitals: Vitals) -> Iterator[httpx.Client]:
    with listening(worker_app(parts, vitals), 0) as url, httpx.Client(base_url=url) as client:
        yield client


def test_a_worker_is_ready_with_partitions_and_stores(client: httpx.Client, vitals: Vitals, telemetry: Telemetry) -> None:
    assert client.get("/readyz").json()["reasons"] == ["this worker has not joined its group yet, or is between two assignments"]
    vitals.assigned = True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["reasons"]) == (200, True, [])
    assert value(telemetry, "everpin_ready") == 1


def test_readiness_lists_every_reason(client: httpx.Client, vitals: Vitals, telemetry: Telemetry) -> None:
    for store in STORES:
        telemetry.answers(store, False)
    vitals.model_fits = False
    answer = client.get("/readyz")
    assert answer.status_code == 503
    reasons = answer.json()["reasons"]
    assert "has not joined its group" in reasons[0]
    assert reasons[1:4] == ["features does not answer", "index does not answer", "kafka does not answer"]
    assert "another model of this name" in reasons[4]
    assert len(reasons) == 5
    assert value(telemetry, "everpin_ready") == 0


def test_a_batch_that_is_tried_again_makes_the_worker_unready(client: httpx.Client, vitals: Vitals) -> None:
    vitals.assigned, vitals.answering = True, False
    assert "tried again" in client.get("/readyz").json()["reasons"][0]


def test_liveness_is_progress(client: httpx.Client, vitals: Vitals, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: clock.now))
    assert client.get("/livez").status_code == 200
    vitals.busy_since[UPDATES] = clock.now
    clock.now += 60 + http.STALL_S
    assert client.get("/livez").status_code == 503
    vitals.busy_since.clear()
    assert client.get("/livez").status_code == 200


def test_liveness_is_a_loop_that_turns(client: httpx.Client, vitals: Vitals, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: clock.now))
    vitals.moved()
    vitals.beat()
    clock.now += http.STALL_S - 1
    assert client.get("/livez").status_code == 200
    clock.now += 1
    assert client.get("/livez").json() == {"alive": False, "batch_in_hand_s": 0.0, "loop_beat_s": 120.0, "still_s": 120.0}


def test_a_worker_that_has_messages_waiting_and_takes_none_is_not_alive(client: httpx.Client, vitals: Vitals, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: clock.now))
    vitals.moved()
    for _ in range(3):
        clock.now += 100
        vitals.beat()
    assert client.get("/livez").status_code == 503
    vitals.moved()
    assert client.get("/livez").status_code == 200


def test_the_version_tells_two_models_of_one_name_apart(client: httpx.Client) -> None:
    body = client.get("/version").json()
    assert (body["model_id"], body["model_sha256"], body["template_version"]) == ("m1", "abc", 1)


def test_the_status_survives_an_absent_index(client: httpx.Client, parts: Parts) -> None:
    assert client.get("/status").json()["index"] == {"live": 0, "textless": 0, "dead": 0, "refused": 0}
    parts.index = Down(Unavailable("away"))
    answer = client.get("/status")
    assert (answer.status_code, answer.json()["index"]) == (200, None)


def test_metrics_are_scraped_with_disk_and_model(client: httpx.Client, parts: Parts, tmp_path: Path) -> None:
    assert 'everpin_model_info{model_id="m1",sha256="abc",template_version="1"} 1.0' in client.get("/metrics").text
    assert (value(parts.telemetry, "everpin_disk_free_bytes") or 0) > 0
    parts.settings.home = tmp_path / "gone"
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("first", ["streams.features", "streams.online_store", "feature_repo.definitions", "streams.app"])
def test_metrics_are_kept_in_memory_whatever_is_imported_first(first: str) -> None:
    """Feast's import sets PROMETHEUS_MULTIPROC_DIR, which would turn every metric of this process and its children into a file."""
    script = (
        f"import os, sys, {first}; from prometheus_client import values; sys.exit(values.ValueClass.__name__ + str('PROMETHEUS_MULTIPROC_DIR' in os.environ))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "MutexValueFalse"
