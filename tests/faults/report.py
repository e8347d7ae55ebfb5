"""What a run did and what came of it: one document, and one table of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.broker import DEAD, EMBEDDED, Broker, read_topic
from streams.deadletters import dead_letters
from tests.faults.fleet import Fleet, Slot
from tests.faults.generator import Step, feature_rows
from tests.faults.injector import NOT_REACHED, RANDOM, Injector
from tests.faults.oracle import FAULTS, Verdict, versions
from tests.faults.worker import POINTS


@dataclass
class Report:
    """Every figure of a run. `ok`: the index equals the oracle, and nothing else was lost on the way."""

    asked: dict[str, Any]
    sent: dict[str, int] = field(default_factory=dict)
    unsent: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    not_reached: int = 0
    pauses: int = 0
    deploys: int = 0
    outages: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    unclean_stops: list[int] = field(default_factory=list)
    rebalances: int = 0
    starts: int = 0
    messages_handled: int = 0
    batches: int = 0
    texts_made: int = 0
    texts_encoded: int = 0
    texts_encoded_unique: int = 0
    recovery_s: dict[str, float] = field(default_factory=dict)
    embedded_published: int = 0
    embedded_published_twice: int = 0
    never_announced: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    poison_lost: int = 0
    innocent_dead: int = 0
    drained: bool = False
    drain_s: float = 0.0
    seconds: float = 0.0
    pins: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    harness_failures: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """What is not as promised, in words; nothing when all is well."""
        checks = {
            "the index was not compared": not self.pins.get("compared"),
            "the workers did not drain their lag": not self.drained,
            "messages could not be sent": self.unsent > 0,
            "poison vanished without a dead letter": self.poison_lost > 0,
            "good events became dead letters": self.innocent_dead > 0,
            f"orderly stops ended with exit codes {self.unclean_stops}, not 0": bool(self.unclean_stops),
            "the harness itself failed": bool(self.harness_failures),
        }
        found = [f"{number} {name}: {FAULTS[name]}" for name, number in self.faults.items() if number]
        return found + [words for words, bad in checks.items() if bad]

    @property
    def ok(self) -> bool:
        return not self.wrong

    @property
    def repeated_embeds(self) -> int:
        """Texts that were encoded more than once: the price of at-least-once."""
        return self.texts_encoded - self.texts_encoded_unique

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "wrong": self.wrong, **vars(self), "kills_total": sum(self.kills.values()), "repeated_embeds": self.repeated_embeds}

    def judge(self, verdict: Verdict) -> None:
        self.pins = {"compared": verdict.pins, "live": verdict.live, "dead": verdict.dead, "kept_as_cosmetic": verdict.cosmetic}
        self.faults = {name: len(ids) for name, ids in verdict.faults.items()}
        self.examples = {name: ids[:10] for name, ids in verdict.faults.items() if ids}

    def read_injector(self, injector: Injector) -> None:
        self.kills = {point: injector.count("kill", point) for point in (*POINTS, RANDOM)}
        self.not_reached = sum(number for (_, where), number in injector.done.items() if where == NOT_REACHED)
        self.pauses, self.deploys = injector.count("pause"), injector.count("deploy")
        self.outages = {kind: injector.count(kind) for kind, _ in injector.done if kind not in ("kill", "pause", "deploy")}
        self.harness_failures += [repr(error) for error in injector.failures]

    def read_fleet(self, fleet: Fleet) -> None:
        self.exits = {str(code): number for code, number in sorted(fleet.exits.items())}
        self.unclean_stops, self.rebalances, self.starts = fleet.unclean, fleet.rebalances(), sum(slot.starts for slot in fleet.slots)
        texts: Counter[str] = Counter()
        waits: list[float] = []
        for slot in fleet.slots:
            self._read_ledger(slot, texts, waits)
        self.texts_encoded, self.texts_encoded_unique = texts.total(), len(texts)
        if waits:
            self.recovery_s = {"p50": _rank(waits, 0.5), "p99": _rank(waits, 0.99), "kills": len(waits)}

    def _read_ledger(self, slot: Slot, texts: Counter[str], waits: list[float]) -> None:
        killed_at = 0.0
        for line in slot.ledger.read_text().splitlines() if slot.ledger.exists() else []:
            what, *words = line.split()
            match what:
                case "text":
                    texts[words[0]] += 1
                case "kill":
                    killed_at = float(words[-1])
                case "pause":
                    killed_at = 0.0  # what follows is not the kill's doing
                case "batch":
                    self.batches, self.messages_handled = self.batches + 1, self.messages_handled + int(words[0])
                    if killed_at:
                        waits.append(float(words[-1]) - killed_at)
                        killed_at = 0.0

    def read_topics(self, broker: Broker, steps: Sequence[Step]) -> None:
        """Every poison must lie in the dead letters, and nothing else."""
        poison = {step.raw for step in steps if step.kind == "poison"}
        letters = list(dead_letters(broker))
        found = {letter.value for letter in letters}
        self.dead_letters = dict(Counter(letter.reason for letter in letters))
        self.poison_lost = len(poison - found)
        self.innocent_dead = len(found - poison)
        if self.innocent_dead:
            self.examples[DEAD] = [f"{letter.pin_id} {letter.reason}: {letter.detail[:200]}" for letter in letters if letter.value not in poison][:10]
        self.texts_made = versions(row for step in steps for row in feature_rows(step, 0))

    def read_notices(self, broker: Broker, verdict: Verdict) -> None:
        """Every vector that changed should have been announced on pin-embedded; see which of those served now never were."""
        announced: Counter[tuple[str, int]] = Counter()
        newest: dict[str, int] = {}
        for record in read_topic(broker, EMBEDDED):
            notice = json.loads(record.value)
            announced[notice["pin_id"], notice["v"]] += 1
            newest[notice["pin_id"]] = max(notice["v"], newest.get(notice["pin_id"], 0))
        self.embedded_published, self.embedded_published_twice = announced.total(), announced.total() - len(announced)
        self.never_announced = sum(at_us > newest.get(pin_id, 0) for pin_id, at_us in verdict.embedded_at_us.items())

    def show(self, console: Console) -> None:
        """The table."""
        table = Table(title=f"Everpin under faults, seed {self.asked.get('seed')}", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for name, value in self._rows():
            table.add_row(name, value)
        console.print(table)
        for words in self.wrong:
            console.print(f"[red]WRONG[/] {words}")
        for name, ids in self.examples.items():
            console.print(f"[red]{name}[/] {ids}")

    def _rows(self) -> list[tuple[str, str]]:
        kinds = ("update", "hint", "late_features", "delete", "tombstone", "poison")
        sent = ", ".join(f"{self.sent.get(kind, 0)} {kind}" for kind in kinds)
        return [
            ("setting", "{workers} workers, {broker} broker, {features} features, {index} index".format(**self.asked)),
            ("events sent", f"{self.sent.get('messages', 0)} of {self.sent.get('unique_pins', 0)} pins, {self.sent.get('duplicates', 0)} twice ({sent})"),
            ("kill -9", f"{sum(self.kills.values())}: " + ", ".join(f"{number} {point}" for point, number in self.kills.items())),
            ("faults not reached", str(self.not_reached)),
            ("zombies, deploys", f"{self.pauses} paused beyond the session, {self.deploys} deploys"),
            ("outages", ", ".join(f"{number} {kind}" for kind, number in self.outages.items()) or "none"),
            ("worker starts, exits", f"{self.starts}; exit codes {self.exits}"),
            ("assignments", f"{self.rebalances} (a rebalance gives one to each worker)"),
            ("messages handled", f"{self.messages_handled} in {self.batches} batches"),
            ("texts made by the schedule", f"{self.texts_made} (one batch makes one embed of many changes of a pin)"),
            ("texts encoded", f"{self.texts_encoded}, of them {self.repeated_embeds} again (the price of at-least-once)"),
            (
                "pin-embedded",
                f"{self.embedded_published} published, {self.embedded_published_twice} of them twice; {self.never_announced} vectors were never announced",
            ),
            ("recovery after a kill", ", ".join(f"{name} {value}" for name, value in self.recovery_s.items()) or "no kill"),
            ("pins compared", ", ".join(f"{number} {name}" for name, number in self.pins.items())),
            *((f"  {name}", str(number)) for name, number in self.faults.items()),
            ("dead letters", f"{self.dead_letters}; poison lost {self.poison_lost}, good events dead {self.innocent_dead}"),
            ("drained", f"{'yes' if self.drained else 'NO'}, {self.drain_s:.1f} s after the last event"),
            ("seconds", f"{self.seconds:.0f}"),
        ]


def _rank(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
