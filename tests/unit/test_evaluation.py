"""`everpin evaluate` on a small folder made here: layout, splits, own pins, missing pins, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everpin.evaluation import evaluate, read_queries
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.metrics import ndcg
from pins.ports import PointWrite
from tests.fakes import FakeEncoder, FakeIndex

PINS = {"soup": "hot soup bowl", "chair": "red chair", "table": "red table", "lake": "lake fog"}


def folder(tmp_path: Path, queries: Sequence[dict[str, Any]], judgements: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(queries)), tmp_path / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(list(judgements)), tmp_path / "judgements.parquet")
    return tmp_path


def index(*pin_ids: str) -> FakeIndex:
    made, encoder = FakeIndex(), FakeEncoder()
    made.write([PointWrite(IndexedPin(pin_id, 1, dead=False, embedded=True, model_id="fake-v1"), None, encoder.query(PINS[pin_id])) for pin_id in pin_ids])
    return made


QUERIES = [
    {"query_id": "q1", "group": "g1", "lang": "en", "query": "hot soup bowl", "split": "dev"},
    {"query_id": "q2", "group": "g2", "lang": "de", "query": "red chair", "split": "dev"},
    {"query_id": "q3", "group": "g3", "lang": "en", "query": "lake fog", "split": "train"},
]
JUDGEMENTS = [
    {"query_id": "q1", "item_id": "soup", "grade": 4, "source": "own"},
    {"query_id": "q1", "item_id": "chair", "grade": 0, "source": "sis"},
    {"query_id": "q1", "item_id": "table", "grade": 2, "source": "sis"},
    {"query_id": "q2", "item_id": "table", "grade": 3, "source": "sis"},
    {"query_id": "q2", "item_id": "chair", "grade": 1, "source": "sis"},
    {"query_id": "q3", "item_id": "lake", "grade": 4, "source": "own"},
]


def test_the_dev_split_is_scored_per_language_with_and_without_the_own_pin(tmp_path: Path) -> None:
    queries = read_queries(folder(tmp_path, QUERIES, JUDGEMENTS), None)
    report = evaluate(queries, FakeEncoder(), index("soup", "chair", "table"))  # type: ignore[arg-type]
    assert report["model_id"] == "fake-v1"
    assert (report["queries"], report["missing_pins"]) == (2, 0)
    assert set(report["languages"]) == {"en", "de"}
    german = report["languages"]["de"]
    assert german["ndcg@20"]["mean"] == pytest.approx(ndcg([1, 3], 20)), "the chair, which says the words, ranks first"
    assert german["p@8"]["mean"] == 1 / 8
    assert german["ndcg@10"]["low"] <= german["ndcg@10"]["mean"] <= german["ndcg@10"]["high"]
    with_own, without = report["languages"]["en"], report["languages_without_own_pin"]["en"]
    assert with_own["p@8"]["mean"] == 1 / 8
    assert without["p@8"]["mean"] == 0


def test_a_pin_that_is_not_in_the_index_ranks_last_and_is_counted(tmp_path: Path) -> None:
    queries = read_queries(folder(tmp_path, QUERIES, JUDGEMENTS), None)
    report = evaluate(queries, FakeEncoder(), index("chair", "table"))  # type: ignore[arg-type]
    assert report["missing_pins"] == 1
    assert report["languages"]["en"]["ndcg@20"]["mean"] < 1


def test_splits_are_chosen_by_name_and_unknown_ones_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, QUERIES, JUDGEMENTS)
    assert [query.query_id for query in read_queries(path, "train")] == ["q3"]
    assert len(read_queries(path, "all")) == 3
    with pytest.raises(EverpinError, match="no split 'test'"):
        read_queries(path, "test")


def test_a_folder_without_splits_sources_or_languages_is_scored_whole(tmp_path: Path) -> None:
    queries = [{"query_id": "q", "query": "red chair"}]
    judgements = [{"query_id": "q", "item_id": "chair", "grade": 2}, {"query_id": "q", "item_id": "table", "grade": 0}]
    report = evaluate(read_queries(folder(tmp_path, queries, judgements), None), FakeEncoder(), index("chair", "table"))  # type: ignore[arg-type]
    assert report["languages"]["?"]["ndcg@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_a_query_whose_candidates_all_have_grade_zero_tells_nothing(tmp_path: Path) -> None:
    judgements = [*JUDGEMENTS, {"query_id": "q4", "item_id": "chair", "grade": 0, "source": "sis"}]
    queries = [*QUERIES, {"query_id": "q4", "group": "g4", "lang": "fr", "query": "nothing", "split": "dev"}]
    report = evaluate(read_queries(folder(tmp_path, queries, judgements), None), FakeEncoder(), index("soup", "chair", "table"))  # type: ignore[arg-type]
    assert report["queries"] == 3
    assert set(report["languages"]) == {"en", "de"}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EverpinError, match=r"queries\.parquet"):
        read_queries(tmp_path / "nowhere", None)
