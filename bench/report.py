"""Writes the figures of bench/*.json into bench/README.md, between its markers, so that no figure is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def result(name: str) -> dict[str, Any]:
    """One committed result."""
    body: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return body


def figures() -> str:
    """The block between the markers."""
    encoder, worker, freshness = result("encoder"), result("worker"), result("freshness")
    lines = [f"Measured on {encoder['machine']['cores']} cores ({encoder['machine']['cpu']}), {encoder['machine']['date']}.", ""]
    lines += ["| encoder | texts/s (median) | everpin fp32 is faster by | min cosine to sentence-transformers |", "|---|---|---|---|"]
    for name, speed in encoder["median_texts_per_second"].items():
        ratio = encoder["ratio_of_everpin_fp32_to"].get(name)
        lines.append(f"| {name} | {speed:.0f} | {f'{ratio:.2f} x' if ratio else ''} | {encoder['min_cosine_to_sentence_transformers'][name]:.5f} |")
    lines += ["", "| worker path | events/s (median) | share of each step |", "|---|---|---|"]
    for path, speed in worker["median_events_per_second"].items():
        shares = sorted(worker["share"][path].items(), key=lambda item: -item[1])
        lines.append(f"| {path} | {speed:.0f} | {', '.join(f'{name} {share:.1%}' for name, share in shares)} |")
    lines += ["", f"| freshness at {freshness['rate_per_second']:g} events/s | events | p50 | p90 | p99 | max |", "|---|---|---|---|---|---|"]
    labels = {
        "freshness_ms": "event produced to searchable, by the worker",
        "freshness_seen_from_outside_ms": "seen from outside, a sample",
        "deleted_seen_from_outside_ms": "a deleted pin gone, seen from outside",
    }
    for key, label in labels.items():
        part = freshness[key]
        lines.append(f"| {label} | {part['events']} | " + " | ".join(f"{part[name]:.0f} ms" for name in ("p50", "p90", "p99", "max")) + " |")
    parts = {
        "edits": edit_figures,
        "retrieval": retrieval_figures,
        "students": student_figures,
        "scaling": scaling_figures,
        "memory": memory_figures,
        "guard": guard_figures,
        "reconcile": reconcile_figures,
        "export": export_figures,
        "backfill": backfill_figures,
        "rollout": rollout_figures,
        "load": load_figures,
        "feed": feed_figures,
        "bridge": bridge_figures,
        "experiments": experiment_figures,
    }
    for name, part in parts.items():
        lines += part(result(name)) if there(name) else []
    return "\n".join([*lines, *fault_figures()])


def there(name: str) -> bool:
    """Whether a result was committed: those that were not measured yet are left out."""
    return (HERE / f"{name}.json").exists()


def edit_figures(edits: dict[str, Any]) -> list[str]:
    """From a change to the answer that shows it, one change at a time."""
    lines = ["", f"| one change at a time, {edits['pins']} pins | changes | p50 | p90 | max | not seen within 30 s |", "|---|---|---|---|---|---|"]
    labels = {
        "edit_accepted_ms": "title edited, to the event accepted",
        "edit_seen_ms": "title edited, to the search result that shows it",
        "action_accepted_ms": "pin saved, to the event accepted",
        "action_seen_ms": "pin saved, to the home feed that follows it",
    }
    for key, label in labels.items():
        cells = ["" if edits[key][name] is None else f"{edits[key][name]:.0f} ms" for name in ("p50", "p90", "max")]
        lines.append(f"| {label} | {edits[key]['count']} | {' | '.join(cells)} | {edits[key].get('unseen_within_30_s', '')} |")
    return lines


def load_figures(bench: dict[str, Any]) -> list[str]:
    """The API under load: percentiles by endpoint and rate, and what happens past saturation."""
    endpoints = ("search", "related", "feed", "pin")
    columns = ["pins", "requests/s", *(f"{name} p50 / p99" for name in endpoints), "query-cache hits", "shed", "failed", "cores: serving, worker, everything"]
    lines = ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in bench["settings"].values():
        for rate, seen in one["rates"].items():
            cells = [f"{times['p50']:.0f} / {times['p99']:.0f} ms" if (times := seen["ms"].get(name)) else "" for name in endpoints]
            hits = seen["server"]["query_cache_hit_share"]
            cells += ["" if hits is None else f"{hits:.0%}", str(seen["shed_503"]), str(sum(seen["failed"].values()))]
            cells.append(", ".join(f"{seen['cores'][name]:.2f}" for name in ("serving", "worker", "everything")))
            lines.append(f"| {one['pins']:,} | {rate} | " + " | ".join(cells) + " |")
    lines += ["", "| pins | saturation, requests/s | asked past it | answered | shed | failed | recovery | freshness of updates, p50 / p99 |", "|---" * 8 + "|"]
    for one in bench["settings"].values():
        past = one["past_saturation"]
        recovery = "not while watched" if past["recovery_s"] is None else f"{past['recovery_s']:g} s"
        fresh = one.get("freshness_ms") or {}
        freshness = f"{fresh['p50'] / 1000:.1f} / {fresh['p99'] / 1000:.1f} s" if fresh.get("p50") else ""
        cells = [f"{past['answered_per_second']:.0f}/s", str(past["shed_503"]), str(sum(past["failed"].values())), recovery, freshness]
        lines.append(f"| {one['pins']:,} | {one['saturation_per_second']:.0f} | {past['asked_per_second']:.0f} | " + " | ".join(cells) + " |")
    return lines


def student_figures(bench: dict[str, Any]) -> list[str]:
    """Students side by side."""
    base = next(iter(bench["students"]))
    lines = ["", f"| student | precision | MB | texts/s (median) | times {base} |", "|---|---|---|---|---|"]
    for name, one in bench["students"].items():
        lines.append(f"| {name} | {one['precision']} | {one['megabytes']:.1f} | {one['median_texts_per_second']:.0f} | {one[f'ratio_to_{base}']:.2f} |")
    return lines


def retrieval_figures(bench: dict[str, Any]) -> list[str]:
    """How good a search over the whole collection is, per language, and what each step adds."""
    systems = list(next(iter(bench["languages"].values()))["ndcg@20"])
    lines = ["", f"nDCG@20 over all {bench['pins']:,} pins, {bench['queries']} dev queries, {bench['model_id']}; unjudged pins count as grade 0.", ""]
    lines += ["| language | queries | language guessed | " + " | ".join(systems) + " |", "|---|---|---|" + "---|" * len(systems)]
    for lang, part in bench["languages"].items():
        guess = bench["language_guess"][lang]
        cells = (f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in (part["ndcg@20"][name] for name in systems))
        lines.append(f"| {lang} | {part['queries']} | {guess['right'] / guess['queries']:.1%} | " + " | ".join(cells) + " |")
    compared = list(next(iter(bench["languages"].values()))["differences"])
    lines += ["", "| difference | " + " | ".join(compared) + " |", "|---|" + "---|" * len(compared)]
    for lang, part in bench["languages"].items():
        cells = (f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" for one in part["differences"].values())
        lines.append(f"| {lang} | " + " | ".join(cells) + " |")
    return lines


def scaling_figures(scaling: dict[str, Any]) -> list[str]:
    """Several workers of one group."""
    lines = ["", "| workers on Kafka | skip path, events/s | embed path, events/s |", "|---|---|---|"]
    medians = scaling["median_events_per_second"]
    lines += [f"| {workers} | {medians['skip'][workers]:.0f} | {medians['embed'][workers]:.0f} |" for workers in medians["skip"]]
    return lines


def memory_figures(memory: dict[str, Any]) -> list[str]:
    """What a worker holds."""
    waiting = memory["events_waiting"]
    lines = ["", f"| memory of a worker, {waiting['at the start']:,} to {waiting['at the end']:,} events waiting | resident MiB |", "|---|---|"]
    return lines + [f"| {name} | {mib:.0f} |" for name, mib in memory["resident_mib"].items()]


def guard_figures(guard: dict[str, Any]) -> list[str]:
    """What the guard costs."""
    lines = ["", "| batch written to the embedded index, ms | bare upsert | guarded | ratio | known record read |", "|---|---|---|---|---|"]
    lines += [
        f"| {size} pins | {ms['bare']:.1f} | {ms['guarded']:.1f} | {guard['guarded_to_bare'][size]:.2f} | {ms['known']:.1f} |"
        for size, ms in guard["median_ms"].items()
    ]
    share = guard["share_of_embedding_a_batch_of_128"]
    return [*lines, "", f"Reading the record and the guarded write are {share:.1%} of the time that embedding a batch of 128 pins takes."]


def reconcile_figures(reconcile: dict[str, Any]) -> list[str]:
    """How fast the index is compared, in how much memory."""
    lines = ["", f"| reconcile, {reconcile['pins']:,} pins | pins/s | peak resident MB | of it the process's own |", "|---|---|---|---|"]
    for name in ("index_opened_by_reconcile", "index_owned_by_another_process"):
        run = reconcile[name]
        lines.append(f"| {name.replace('_', ' ')} | {run['pins_per_second']:.0f} | {run['memory_mb']['peak']} | {run['memory_mb']['anonymous']} |")
    return lines


def export_figures(export: dict[str, Any]) -> list[str]:
    """How fast the vectors are exported, in how much memory."""
    lines = [
        "",
        f"| export, {export['dimension']} dimensions | rows | rows/s | rows per CPU second | peak MB | its own | load, {export['machine']['cores']} cores |",
        "|---" * 7 + "|",
    ]
    for name in ("generated", "index_opened_by_export", "index_owned_by_another_process"):
        run = export[name]
        cells = [f"{run['rows']:,}", str(run["rows_per_second"]), str(run["rows_per_cpu_second"]), str(run["memory_mb"]["peak"])]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {run['memory_mb']['anonymous']} | {run['load_average'][0]:g} |")
    return lines


def backfill_figures(backfill: dict[str, Any]) -> list[str]:
    """A backfill beside the encoder alone."""
    head = f"backfill of {backfill['pins']:,} pins, workers x threads"
    lines = ["", f"| {head} | pins/s (median) | encoder alone, texts/s | share of it |", "|---|---|---|---|"]
    for name, speed in backfill["median_pins_per_second"].items():
        lines.append(f"| {name} | {speed:.0f} | {backfill['median_encoder_texts_per_second'][name]:.0f} | {backfill['share_of_encoder'][name]:.0%} |")
    two, load = backfill["two_workers_to_one"], backfill["load_before"][0]
    words = f"Two workers of one thread make {two['backfill']:.2f} of one, the encoder alone {two['encoder']:.2f}; starting and stopping take"
    return [*lines, "", f"{words} {backfill['start_s']:.0f} s. The machine's load before the run was {load:.1f}."]


def rollout_figures(bench: dict[str, Any]) -> list[str]:
    """What clients saw of a whole rollout, and how long its steps took."""
    seen, clients, rate = bench["rollout"], bench["clients"], bench["writes_per_second"]
    lost = ", ".join(f"{where}: {number}" for where, number in seen["missing_updates"].items())
    lines = ["", f"| a whole rollout, {clients} clients asking all the time, {rate:g} writes/s | |", "|---|---|"]
    for what, value in (
        ("requests", f"{seen['requests']:,}"),
        ("failed", f"{seen['failed']}"),
        ("answers of no one model", f"{seen['mixed']} of {seen['scores_checked']:,} scores computed again"),
        ("deleted pins that came back", f"{seen['resurrected']}"),
        ("updates missing, by collection", lost),
    ):
        lines.append(f"| {what} | {value} |")
    return lines + [f"| {name} | {seconds:.1f} s |" for name, seconds in seen["seconds"].items()]


def feed_figures(feed: dict[str, Any]) -> list[str]:
    """Variants of the home feed's interests, on generated users."""
    head = f"home feed, {feed['users']} GENERATED users, {feed['model_id']}"
    lines = ["", f"| {head} | interest recall | pin recall | precision | diversity | published lift: relevance, recall |", "|---|---|---|---|---|---|"]
    for name, metrics in feed["variants"].items():
        cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in metrics.values()]
        lift = feed["published_lift_percent"].get(name)
        lines.append(f"| {name} | {' | '.join(cells)} | {f'{lift[0]} %, {lift[1]} %' if lift else ''} |")
    lines += ["", "| interest recall by the mean life of planted interests | lambda 0 | lambda 0.01 | lambda 0.1 |", "|---|---|---|---|"]
    for life, variants in feed["lambda_by_mean_life_days"].items():
        lines.append(f"| {life} days | {' | '.join('{:.3f} [{:.3f}, {:.3f}]'.format(*metrics['interest_recall']) for metrics in variants.values())} |")
    return lines


def experiment_figures(experiments: dict[str, Any]) -> list[str]:
    """What simulated experiments call different where nothing is, and what they find of what is."""
    worlds = experiments["nulls"]
    lines = ["", f"| nulls, GENERATED people: called different (5 % promised) | {' | '.join(worlds)} |", "|---|" + "---|" * len(worlds)]
    for name in next(iter(worlds.values()))["called_different"]:
        cells = (world["called_different"][name] for world in worlds.values())
        lines.append(f"| {name} | " + " | ".join(f"{one['share']:.1%} [{one['low']:.1%}, {one['high']:.1%}]" for one in cells) + " |")
    lines += [
        "",
        "| planted lift of fulfilment | searches | found by A/B | by interleaving | interleaving needs fewer searches |",
        "|---|---|---|---|---|",
    ]
    for one in experiments["lifts"]:
        found = (f"{one[mode]['share']:.0%} [{one[mode]['low']:.0%}, {one[mode]['high']:.0%}]" for mode in ("ab", "interleaving"))
        fewer = one["times_fewer_searches"]
        times = f"{fewer['times']:.0f} x [{fewer['low']:.0f}, {fewer['high']:.0f}]"
        lines.append(f"| {one['lift']:+.0%} | {one['searches']:.0f} | {' | '.join(found)} | {times} |")
    return lines


def bridge_figures(bench: dict[str, Any]) -> list[str]:
    """What a new model's queries keep of full re-embedding on an old collection."""
    head = "kept of nDCG@20, all queries | in languages the old model reads | in others | nDCG@20 old, bridged, re-embedded | us a query (p50)"
    lines = ["", f"Bridges, {bench['queries']} dev queries over {bench['searched_pins']:,} pins that no bridge was fitted on.", ""]
    lines += [f"| bridge | kind | fitted on | {head} |", "|---" * 8 + "|"]
    for case in bench["cases"]:
        for kind, rows in case["kinds"].items():
            for one in rows.values():
                quality, texts = one["quality"], one["pins"] + one["texts"]
                kept = [f"{part['mean']:.3f} [{part['low']:.3f}, {part['high']:.3f}]" if part else "" for part in _kept(quality)]
                means = ", ".join(f"{quality['all']['ndcg@20'][system]['mean']:.3f}" for system in ("old", "bridged", "new"))
                cells = [f"{case['new']} to {case['old']}", kind, f"{texts:,} texts", *kept, means, f"{one['microseconds_per_query']['p50']:.0f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _kept(quality: dict[str, Any]) -> list[dict[str, float] | None]:
    return [quality[name]["kept"] if name in quality else None for name in ("all", "read", "unread")]


def fault_figures() -> list[str]:
    """What a kill costs."""
    lines = ["", "| under faults | kills | lost, stale, resurrected, of another model | texts encoded again | recovery p50 / p99 |", "|---|---|---|---|---|"]
    for name in filter(there, ("faults/three-workers", "faults/one-worker")):
        run = result(name)
        recovery = run["recovery_s"]
        repeated = f"{run['repeated_embeds']} of {run['texts_encoded']}"
        lines.append(
            f"| {run['asked']['workers']} workers, {run['sent']['messages']} events | {run['kills_total']} | {sum(run['faults'].values())} | {repeated} "
            f"| {recovery['p50']:.1f} s / {recovery['p99']:.1f} s |"
        )
    return lines


def rewritten(text: str) -> str:
    """The README with fresh figures."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{figures()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Rewrite bench/README.md."""
    README.write_text(rewritten(README.read_text()))


if __name__ == "__main__":
    main()
