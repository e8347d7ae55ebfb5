"""A library that repeats itself is heard once a minute; Everpin's own lines always."""

from __future__ import annotations

import logging

import pytest

from everpin.logs import OncePerMinute, configure_logging


def line(logger: str, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, __file__, 1, message, arguments, None)


def test_a_complaint_is_shown_once_a_minute_with_how_often_it_was_kept_back() -> None:
    now = [100.0]
    once = OncePerMinute(lambda: now[0])
    shown = []
    for second in range(130):
        now[0] = 100.0 + second
        record = line("aiokafka.conn", "Unable to connect to %s: %d", "node 1", second)
        if once.filter(record):
            shown.append(record.getMessage())
    assert shown == [
        "Unable to connect to node 1: 0",
        "Unable to connect to node 1: 60 (and 59 times since this was last shown)",
        "Unable to connect to node 1: 120 (and 59 times since this was last shown)",
    ]


def test_other_complaints_and_our_own_lines_are_not_held_back() -> None:
    once = OncePerMinute(lambda: 0.0)
    assert [once.filter(line("aiokafka", words)) for words in ("one", "two", "one")] == [True, True, False]
    assert once.filter(line("kafka.client", "one"))
    assert all(once.filter(line("everpin.worker", "batch")) for _ in range(3))


def test_the_filter_is_on_the_handler_that_writes(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logging("info")
        for _ in range(3):
            logging.getLogger("aiokafka").error("gone")
            logging.getLogger("everpin.test").info("here")
    finally:
        root.handlers, root.level = before, level
    said = capsys.readouterr().err
    assert (said.count("gone"), said.count("here")) == (1, 3)
