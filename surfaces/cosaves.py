"""Which pins the same people saved: counted from users' histories in the background, for related pins."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

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

    def start(self) -> None:
        """Read from now on, until `close`."""
        threading.Thread(target=self._watch, name="everpin-cosaves", daemon=True).start()

    def of(self, pin_id: str) -> Mapping[str, float]:
        """Weight of each pin that was saved together with this one."""
        return cosaves(pin_id, self._histories)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()

    def _watch(self) -> None:
        while True:
            try:
                self._histories = self._people.saved(MOST_USERS)
            except EverpinError as error:
                log.warning("co-saves stay as they were: %s", error)
            if self._stop.wait(REFRESH_S):
                return
