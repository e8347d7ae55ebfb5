"""An experiment through Kafka: written as serving writes it, read back by `everpin experiment`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from everpin.commands.experiments import experiment_list, experiment_report
from everpin.settings import Settings, settings
from everpin.wiring import now_us
from pins.errors import EverpinError
from pins.experiments.exposures import CANDIDATE, CONTROL, INTERLEAVED, ExperimentEvent, Exposure, Outcome, unit_name
from pins.experiments.interleaving import coins, team_draft
from pins.experiments.metrics import SUMS
from streams import experiments
from streams.broker import EXPERIMENT_EXPOSURES, EXPERIMENT_OUTCOMES, Broker, EventProducer, Post, embedded_broker, ensure_topics
from streams.experiments import GROUP, Reading, Topics, passes, post, read_experiment
from surfaces.exposures import ExposureLog
from surfaces.metrics import Metrics
from tests.integration.rig import until
from tests.services import ServiceUnavailable, unavailable
from tests.services.kafka import start_kafka

PEOPLE = 400
PINS = tuple(f"p{n}" for n in range(10))


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """An empty one for all of these tests: they count every record."""
    if request.param == "embedded":
        with embedded_broker() as broker:
            yield broker
        return
    try:
        kafka = start_kafka(tmp_path_factory.mktemp("kafka"))
    except ServiceUnavailable as reason:
        unavailable(reason)
    with kafka:
        if not kafka.ours:
            unavailable(f"{kafka.address} from EVERPIN_TEST_KAFKA may hold other experiments: unset it for tests that count every record")
        yield Broker(kafka.address)


@pytest.fixture(scope="module")
def written(broker: Broker) -> list[ExperimentEvent]:
    """Two experiments, one in arms and one interleaved, where the candidate's people save half of the time and the control's a fifth."""
    ensure_topics(broker, 4, 1)
    chance, at_us, events = random.Random(5), now_us() - 3_600_000_000, []
    for number in range(PEOPLE):
        arm = (CONTROL, CANDIDATE)[number % 2]
        for search in range(1 + number % 3):
            request = f"a{number}-{search}"
            events.append(Exposure("arms", unit_name(f"u{number}", "arms"), arm, "search", request, (arm,), PINS, at_us + number, share=0.5))
            if chance.random() < (0.5 if arm == CANDIDATE else 0.2):
                events.append(Outcome("arms", "someone", request, chance.choice(PINS), "save", at_us + number + 9))
        draft = team_draft(PINS, PINS[::-1], 8, coins(f"i{number}", "turns"))
        shown = Exposure("turns", f"u{number}", INTERLEAVED, "search", f"i{number}", (CONTROL, CANDIDATE), draft.shown, at_us, draft.teams)
        events += [shown, shown] if number == 0 else [shown]
        if chance.random() < 0.5:
            wanted = CANDIDATE if chance.random() < 0.7 else CONTROL
            pin = chance.choice([pin for pin, team in zip(draft.shown, draft.teams, strict=True) if team == wanted])
            events.append(Outcome("turns", "someone", f"i{number}", pin, "click", at_us + 5, 15_000))
    events += [Outcome("arms", "someone", "a0-0", "p-other", "click", at_us + 1), Outcome("arms", "someone", "nobody", "p1", "save", at_us + 1)]
    events.append(Exposure("arms", "u", CONTROL, "feed", "f1", (CONTROL,), PINS, at_us, share=0.5))
    chance.shuffle(events)
    producer = EventProducer(broker, GROUP)
    assert not any(producer.deliver([post(event) for event in events]))
    assert producer.deliver([Post(EXPERIMENT_EXPOSURES, b"r", b"no event", {}), Post(EXPERIMENT_OUTCOMES, b"r", None, {})]) == ["", ""]
    producer.close()
    return events


@pytest.fixture
def at_home(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path))
    monkeypatch.setenv("EVERPIN_KAFKA", str(broker))
    monkeypatch.setenv("COLUMNS", "200")
    settings.cache_clear()
    yield
    settings.cache_clear()


def command(*arguments: str, code: int = 0) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("report")(experiment_report)
    app.command("list")(experiment_list)
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout


def report(*arguments: str, code: int = 0) -> Any:
    return json.loads(command("report", *arguments, "--json", code=code))


@pytest.mark.usefixtures("written", "at_home")
def test_the_report_says_what_was_planted(written: list[ExperimentEvent]) -> None:
    document = report("arms")
    searches = [event for event in written if isinstance(event, Exposure) and event.experiment == "arms" and event.surface == "search"]
    for arm in (CONTROL, CANDIDATE):
        assert document["arms"][arm]["units"] == PEOPLE / 2
        assert document["arms"][arm]["searches"] == sum(event.arm == arm for event in searches)
    assert document["verdicts"]["ab"]["kind"] == "better"
    assert document["arms"][CONTROL]["metrics"]["fulfilment"]["value"] == pytest.approx(0.2, abs=0.06)
    difference = document["candidate_minus_control"]["fulfilment"]
    assert difference["low"] < 0.3 < difference["high"]
    assert document["sample_ratio"] | {"p": 0} == {"control": PEOPLE / 2, "candidate": PEOPLE / 2, "share": 0.5, "p": 0, "broken": False}
    saves = sum(isinstance(event, Outcome) and event.action == "save" and event.request_id != "nobody" for event in written)
    assert {name: number for name, number in document["counts"].items() if number} == {
        "exposures": len(searches), "outcomes": saves, "elsewhere_outcomes": 1, "unknown_outcomes": 1, "unreadable": 2,
    }  # fmt: skip
    assert document["exposures_by_surface"] == {"search": len(searches), "feed": 1}
    assert document["candidate_minus_control"]["hides"]["p"] is None
    assert document["preference"] is None


@pytest.mark.usefixtures("written", "at_home")
def test_interleaving_is_reported_as_a_preference() -> None:
    document = report("turns")
    preference = document["preference"]
    assert document["verdicts"].keys() == {"interleaving"}
    assert document["verdicts"]["interleaving"]["kind"] == "better"
    assert preference["candidate_wins"] + preference["control_wins"] == document["counts"]["outcomes"]
    assert preference["candidate_wins"] > 1.5 * preference["control_wins"]
    assert document["counts"]["repeated_exposures"] == 1
    assert "People prefer the candidate" in command("report", "turns")


@pytest.mark.usefixtures("written", "at_home")
def test_a_wrong_share_breaks_the_report_and_its_exit_code() -> None:
    assert report("arms", "--share", "20", code=1)["verdicts"]["ab"]["kind"] == "broken"
    assert "do not read the rest" in command("report", "arms", "--share", "20", code=1)
    for arguments, words in ((["arms", "--share", "100"], "below 100"), (["nobody"], "the topics hold: arms, turns"), (["arms", "--since", "x"], "no time")):
        with pytest.raises(EverpinError, match=words):
            command("report", *arguments)
    with pytest.raises(EverpinError, match="no exposure"):
        command("report", "arms", "--since", "30m")


@pytest.mark.usefixtures("written", "at_home")
def test_the_list_and_the_report_are_shown_for_people() -> None:
    listed = json.loads(command("list", "--json"))["experiments"]
    assert [(row["experiment"], row["model_ids"]) for row in listed] == [("arms", [CANDIDATE, CONTROL]), ("turns", [CANDIDATE, CONTROL])]
    assert listed[1]["arms"] == {INTERLEAVED: PEOPLE + 1}
    assert "interleaved 401" in command("list")
    text = command("report", "arms")
    assert "Candidate better on fulfilment by +0." in text
    assert "Answers of other surfaces: feed 1" in text
    assert "200 of 400 units are the candidate's, 50.00% dealt" in text
    assert "Too little data" in command("report", "arms", "--surface", "feed")


def test_several_passes_read_the_same(broker: Broker, written: list[ExperimentEvent]) -> None:
    topics, steps = Topics(broker, now_us()), []
    assert topics.records == len(written) + 2
    whole, apart = read_experiment(topics, Reading("arms"), 1), read_experiment(topics, Reading("arms"), 3, steps.append)
    assert sum(steps) == 3 * topics.records
    assert apart.counts == whole.counts
    for arm in (CONTROL, CANDIDATE):
        for name in SUMS:
            of = [dict(zip(joined.arms[arm].units, joined.arms[arm].of(name), strict=True)) for joined in (whole, apart)]
            assert of[0] == of[1]


def test_records_decide_how_often_topics_are_read() -> None:
    assert [passes(records, 10) for records in (0, 10, 11, 31)] == [1, 1, 2, 4]
    assert passes(experiments.RECORDS_PER_PASS + 1) == 2


@pytest.mark.usefixtures("written")
def test_what_serving_logs_is_what_a_report_reads(broker: Broker, tmp_path: Path) -> None:
    metrics = Metrics("test")
    log = ExposureLog(Settings(home=tmp_path, kafka=str(broker)), metrics)
    log.start()
    log.log(Exposure("logged", "u", CONTROL, "search", "l1", ("old",), PINS, now_us()))
    log.log(Outcome("logged", "v", "l1", "p3", "save", now_us()))
    sent = [metrics.experiment_events.labels(kind, "sent") for kind in ("exposure", "outcome")]
    until(lambda: all(next(iter(one.collect())).samples[0].value == 1 for one in sent), "both are sent")
    log.close()
    joined = read_experiment(Topics(broker, now_us()), Reading("logged"), 1)
    assert (joined.counts["exposures"], joined.counts["outcomes"], joined.counts["repeated_exposures"]) == (1, 1, 0)
    assert joined.arms[CONTROL].of("saves").tolist() == [1]
