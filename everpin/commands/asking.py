"""Ask the index: search, related pins, home feed, a pin's own story, and how good the answers are."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from everpin.answers import answer_feed, answer_related, answer_search, explain, reading
from everpin.commands.output import NOT_DONE, PARTIAL, AsJson, Limit, emit
from everpin.demo import results_table
from everpin.evaluation import evaluate, read_queries
from everpin.live import live_settings
from everpin.settings import settings
from everpin.wiring import build_encoder
from pins.errors import EverpinError
from pins.ports import Where
from pins.retrieval.language import guess_language
from pins.retrieval.related import RelatedOptions
from pins.retrieval.search import SearchOptions


class Retrieval(StrEnum):
    """What finds the candidates."""

    hybrid = "hybrid"
    dense = "dense"
    sparse = "sparse"


class Rerank(StrEnum):
    """What orders them in the end."""

    relevance = "relevance"
    late_interaction = "late_interaction"
    none = "none"


Lang = Annotated[str | None, typer.Option(help="Only pins of this language.")]
Category = Annotated[str | None, typer.Option(help="Only pins of this category.")]
Board = Annotated[str | None, typer.Option(help="Only pins with this board title.")]
Diversity = Annotated[float, typer.Option(min=0, max=1, help="0: by relevance alone; 1: as unlike one another as can be.")]


def search(
    text: str,
    limit: Limit = 10,
    lang: Lang = None,
    category: Category = None,
    board: Board = None,
    retrieval: Annotated[Retrieval, typer.Option(help="Vectors (dense), words (sparse), or both.")] = Retrieval.hybrid,
    rerank: Annotated[Rerank, typer.Option(help="What orders the candidates in the end.")] = Rerank.relevance,
    min_level: Annotated[int, typer.Option(min=1, max=5, help="Leave out results below this relevance level.")] = 1,
    diversity: Diversity = 0.0,
    explain: Annotated[bool, typer.Option("--explain", help="Say where each result came from and what each stage gave it.")] = False,
    as_json: AsJson = False,
) -> None:
    """The pins most relevant to a text, each with its relevance level."""
    if not text.strip():
        raise EverpinError("the query is empty; give at least one word")
    where = Where(lang=lang, category=category, board=board)
    options = SearchOptions(limit, where, retrieval.value, rerank.value, min_level, diversity=diversity)
    results = answer_search(live_settings(settings()), text, options, explained=explain)
    emit({"query": text, "lang_guess": guess_language(text), "results": results}, as_json, lambda console: _show_search(console, text, results, explain))
    if not results:
        _say_why_nothing(options)


def _show_search(console: Console, text: str, results: list[dict[str, Any]], explained: bool) -> None:
    console.print(results_table(f"Search: {text}", results))
    if explained:
        table = Table(
            "pin", "dense rank", "cosine", "sparse rank", "BM25", "late", "ranked by", "words that matched", title="Where they came from", title_justify="left"
        )
        for result in results:
            told = result["explain"]
            cells = (told[name] for name in ("dense_rank", "cosine", "sparse_rank", "bm25", "late_interaction", "ranked_by"))
            table.add_row(result["pin_id"], *("" if cell is None else str(cell) for cell in cells), ", ".join(told["matched_terms"]))
        console.print(table)


def _say_why_nothing(options: SearchOptions) -> None:
    """An answer of nothing over an empty index is no success. Raises typer.Exit then."""
    with reading(live_settings(settings())) as index:
        live = index.counts()["live"]
    if not live:
        print(f"everpin: the index of {index.model_id} holds no pins; run `everpin import`, or `everpin reconcile --fix` if it was wiped", file=sys.stderr)
        raise typer.Exit(PARTIAL)
    asked = f"the filters {options.where}" + (f" and is of level {options.min_level} or above" if options.min_level > 1 else "")
    words = ", and with --retrieval sparse only pins that hold a word of the query are found" if options.retrieval == "sparse" else ""
    print(f"everpin: none of the {live} pins in the index fits {asked}{words}", file=sys.stderr)


def related(pin: str, limit: Limit = 10, lang: Lang = None, category: Category = None, diversity: Diversity = 0.0, as_json: AsJson = False) -> None:
    """Pins like a pin, each with the reason."""
    options = RelatedOptions(limit, Where(lang=lang, category=category), diversity)
    results = answer_related(live_settings(settings()), pin, options)
    emit({"pin_id": pin, "results": results}, as_json, lambda console: console.print(results_table(f"Related to {pin}", results)))


def feed(user: str, limit: Limit = 20, as_json: AsJson = False) -> None:
    """A user's home feed; the newest pins for a user without a history."""
    document = {"user_id": user} | answer_feed(live_settings(settings()), user, limit)
    emit(document, as_json, lambda console: _show_feed(console, document))


def _show_feed(console: Console, document: dict[str, Any]) -> None:
    console.print(results_table(f"Home feed of {document['user_id']}", document["results"]))
    if document["interests"]:
        table = Table("interest", "pins", "importance", "in this feed", title="Interests", title_justify="left")
        for interest in document["interests"]:
            table.add_row(interest["title"], str(interest["pins"]), f"{interest['importance']:.0%}", "yes" if interest["sampled"] else "")
        console.print(table)


def explain_pin(pin: str, as_json: AsJson = False) -> None:
    """A pin's own story: features with their times, rendered text, record in the index, and what would be decided now."""
    document = explain(live_settings(settings()), pin)
    emit(document, as_json, lambda console: console.print_json(json.dumps(document, ensure_ascii=False, default=str)))
    if document["features"] is None and document["record"] is None:
        print(f"everpin: pin {pin!r} is neither in the feature store nor in the index", file=sys.stderr)
        raise typer.Exit(NOT_DONE)


def evaluate_cxc(
    folder: Path,
    split: Annotated[str | None, typer.Option(help="A value of the queries' split column, or all. Default: dev where there is one, else all.")] = None,
    as_json: AsJson = False,
) -> None:
    """NDCG@10, nDCG@20 and P@8 per language, with and without the own pin, with 95 % bootstrap intervals by group."""
    config = live_settings(settings())
    queries = read_queries(folder, split)
    with reading(config) as index, Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("encoding queries", total=len(queries))
        document = evaluate(queries, build_encoder(config), index, lambda n: progress.advance(task, n))
    emit(document, as_json, lambda console: _show_evaluation(console, document))
    if document["missing_pins"]:
        print(f"everpin: {document['missing_pins']} judged pins have no vector and ranked last; run `everpin import cxc {folder}` first", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def _show_evaluation(console: Console, document: dict[str, Any]) -> None:
    for part, title in (("languages", "own pin included"), ("languages_without_own_pin", "own pin left out")):
        table = Table("language", "queries", "nDCG@10", "nDCG@20", "P@8", title=f"{document['model_id']}, {title}")
        for lang, metrics in document[part].items():
            cells = [f"{m['mean']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in (metrics[name] for name in ("ndcg@10", "ndcg@20", "p@8"))]
            table.add_row(lang, str(metrics["queries"]), *cells)
        console.print(table)
