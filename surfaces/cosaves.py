"""Which pins the same people saved: counted from users' histories in the background, for related pins."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pins.cosaves import cosaves
from pins.errors import EverpinError
from surfaces.people import People

log = logging.getLogger("everpin.surfaces")
REFRESH_S = 300.0
"""How old the histories may be that co-saves are counted from: what many people saved together changes slowly."""
MOST_USERS = 20_000
"""Users whose histories are read: a bounded sample of a large installation."""


class CoSaves:
    """The histories of up to `MOST_USERS` users, read anew now and then by a thread of its own. Empty until it has read them."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._stop = threading.Event()
        self._histories: Mapping[str, frozenset[str]] = {}
        self._savers: Mapping[str, Sequence[str]] = {}

    def start(self) -> None:
        """Read from now on, until `close`."""
        threading.Thread(target=self._watch, name="everpin-cosaves", daemon=True).start()

    def of(self, pin_id: str) -> Mapping[str, float]:
        """Weight of each pin that was saved together with this one."""
        histories = self._histories
        return cosaves(pin_id, {user: histories[user] for user in self._savers.get(pin_id, ()) if user in histories})

    def read(self) -> None:
        """Read the histories now. Raises Unavailable."""
        histories = self._people.saved(MOST_USERS)
        savers: dict[str, list[str]] = defaultdict(list)
        for user, saved in histories.items():
            for pin_id in saved:
                savers[pin_id].append(user)
        self._histories, self._savers = histories, savers

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()

    def _watch(self) -> None:
        while True:
            try:
                self.read()
            except EverpinError as error:
                log.warning("co-saves stay as they were: %s", error)
            if self._stop.wait(REFRESH_S):
                return
