"""What a run of labelling will do, decided before anything is scored: which queries, over which pins, described for labels.json."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pins.errors import ArtifactError
from pins.text import TEMPLATE_VERSION, render
from training.data import DataError, RelevanceData
from training.labels.candidates import Catalogue, Mix
from training.labels.queries import BANDS, LabelQuery, Pool, Wanted, choose, gather, popularity
from training.students.published import embed, open_student


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides which labels come out. `limit`: queries at most; `shard_queries`: queries that a kill may cost."""

    per_query: int = 32
    limit: int | None = None
    seed: int = 7
    shard_queries: int = 128
    wanted: Wanted = field(default_factory=Wanted)

    def __post_init__(self) -> None:
        for name in ("per_query", "limit", "shard_queries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; give at least 1")


@dataclass(frozen=True, slots=True)
class Job:
    """What is labelled: the pins of `data`, searched through `catalogue` (`index` names its student), for train queries and logs.

    `classes`: licence class by source of the logs.
    """

    data: RelevanceData
    catalogue: Catalogue
    index: str
    logs: Sequence[Path] = ()
    classes: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Work:
    """The queries of a run in their order, with their popularity, and what labels.json says of them."""

    queries: list[LabelQuery]
    bands: list[str]
    about: dict[str, Any]

    def shards(self, size: int, first: int) -> Iterator[slice]:
        """Which queries each shard holds, from shard `first` on."""
        for start in range(first * size, len(self.queries), size):
            yield slice(start, start + size)


def plan(job: Job, teacher_id: str) -> Work:
    """Gather and choose the queries, say what was left out, and describe the run for labels.json."""
    settings = job.settings
    pool = gather(job.data, job.logs, job.classes, settings.wanted)
    bands = popularity(pool.queries, job.catalogue.found([query.asked for query in pool.queries]))
    places = choose(pool.queries, bands, settings.limit, settings.seed)
    work = Work([pool.queries[place] for place in places], bands[places].tolist(), {})
    _tell(pool, work)
    used = Counter(query.source for query in work.queries if query.logged)
    work.about.update(
        teacher_id=teacher_id,
        data_digest=job.data.digest,
        seed=settings.seed,
        licence_classes=sorted({job.classes[source] for source in used}),
        config=_config(job) | {"queries_sha256": _digest(work)},
        sources={job.data.folder.name: sum(not query.logged for query in work.queries)} | dict(sorted(used.items())),
        languages=dict(sorted(Counter(query.lang for query in work.queries).items())),
        left_out=pool.dropped,
    )
    if settings.wanted.through_english:
        work.about["through_english"] = _through_english(work.queries)
    return work


def open_catalogue(data: RelevanceData, model: Path, mix: Mix) -> tuple[Catalogue, str]:
    """The folder's pins in the index of a published student, and that student's name and digest. Raises DataError."""
    try:
        student = open_student(model)
    except ArtifactError as error:
        raise DataError(f"--index: {error}") from error
    texts = [render(pin).text for pin in data.pins]
    vectors = embed(student, texts, "pins")
    index = f"{student.model_id} {student.manifest.files['model.onnx'][:12]}"
    return Catalogue(texts, [pin.lang for pin in data.pins], vectors, student.encode, mix), index


def read_mix(path: Path | None) -> Mix:
    """The proportions in a TOML file (judged, bm25, index, hard, random, hard_from, hard_to), or the defaults. Raises DataError."""
    if path is None:
        return Mix()
    try:
        return Mix(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no mix of candidates: {error}; it may set {', '.join(asdict(Mix()))} to whole numbers") from error


def _config(job: Job) -> dict[str, Any]:
    settings = job.settings
    return {
        "per_query": settings.per_query,
        "limit": settings.limit,
        "shard_queries": settings.shard_queries,
        **asdict(settings.wanted),
        "mix": asdict(job.catalogue.mix),
        "logs": {path.name: sha256(path.read_bytes()).hexdigest() for path in job.logs},
        "index": job.index,
        "template_version": TEMPLATE_VERSION,
    }


def _digest(work: Work) -> str:
    """Changes with any query, what the teacher reads for it, its judged pins, its band or its place."""
    total = sha256()
    for query, band in zip(work.queries, work.bands, strict=True):
        total.update(f"{query.text}\t{query.lang}\t{query.query_id}\t{query.asked}\t{band}\n".encode())
    return total.hexdigest()


def _through_english(queries: Sequence[LabelQuery]) -> dict[str, Any]:
    others = [query for query in queries if query.lang != query.asked.lang]
    return {
        "queries": len(others),
        "by_group": sum(not query.logged for query in others),
        "by_aligned_text": sum(query.logged for query in others),
        "meaning": "the teacher read English for these queries: another person's English query of the same group, or aligned text; "
        "rows carry the original text and language",
    }


def _tell(pool: Pool, work: Work) -> None:
    counts = Counter(zip((query.lang for query in work.queries), work.bands, strict=True))
    held_out = pool.dropped.get("equal to a held-out query", 0)
    print(f"{len(work.queries)} of {len(pool.queries)} queries to label; {held_out} left out because they equal a query outside the train split")
    for reason, rows in pool.dropped.items():
        print(f"  left out, {reason}: {rows}")
    for lang in sorted({query.lang for query in work.queries}):
        print(f"  {lang}: " + ", ".join(f"{band} {counts[lang, band]}" for band in BANDS))
