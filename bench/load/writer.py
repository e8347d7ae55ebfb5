"""A process of its own that sends pin updates at a steady rate until its standard input ends, then prints how many it sent in how long."""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from pathlib import Path

from bench.sample import caption
from everpin.wiring import now_us
from pins.events import PinUpdated
from streams.broker import Broker, EventProducer


def main() -> None:
    """Send; each update gives a pin a caption that it never had, or, beyond the share of changes, says nothing new."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("group")
    parser.add_argument("pins", type=Path, help="a file with the pins to change, one id a line")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--changes", type=float, default=1.0)
    arguments = parser.parse_args()
    pins = arguments.pins.read_text().splitlines()
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    producer = EventProducer(Broker.parse(arguments.broker), arguments.group)
    chance, started, sent = random.Random(5), time.perf_counter(), 0
    while not stopped.wait(max(0.0, started + sent / arguments.rate - time.perf_counter())):
        number = chance.randrange(len(pins))
        changed = {"pin_caption": {"caption": f"{caption(number, sent)}, story {sent}"}} if chance.random() < arguments.changes else {}
        producer.send(PinUpdated(pins[number], now_us(), changed))
        sent += 1
    seconds = time.perf_counter() - started
    producer.close()
    print(json.dumps({"updates": sent, "seconds": round(seconds, 1), "updates_per_second": round(sent / seconds, 1)}))


if __name__ == "__main__":
    main()
