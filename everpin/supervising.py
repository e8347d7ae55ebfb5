"""The workers of a running system: one process for each model whose collection must be kept up to date, as alias and rollout say."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from everpin.live import Installation, installation, of_model
from everpin.settings import Settings
from everpin.system import stop, worker_process
from everpin.wiring import now_us
from pins.errors import EverpinError
from pins.rollout import Rollout
from streams.broker import Broker

log = logging.getLogger("everpin.up")
FIRST_RESTART_S, LONGEST_RESTART_S = 1.0, 30.0


class Workers:
    """Starts the workers that are wanted and stops those that are not. Call `follow` about twice a second.

    A candidate's worker that ends is started again, ever later. What it missed meanwhile an embedded broker may have dropped, so the backfill
    then has to look at every pin again. The live model's worker is not restarted: `lost` names it.
    """

    def __init__(self, config: Settings, broker: Broker, log_file: Path | None = None, running: Mapping[str, subprocess.Popen[bytes]] | None = None) -> None:
        self._config, self._broker, self._log_file = config, broker, log_file
        self._installation: Installation = installation(config)
        self._running: dict[str, subprocess.Popen[bytes]] = dict(running or {})
        self._stacks: dict[str, ExitStack] = {}
        self._again_at: dict[str, tuple[float, float]] = {}
        self.problem = ""

    def pids(self) -> dict[str, int]:
        """The process of each model's worker."""
        return {model_id: process.pid for model_id, process in self._running.items() if process.poll() is None}

    def lost(self) -> tuple[str, int] | None:
        """The live model and the exit code of its worker, where that has ended."""
        try:
            live = self._installation.live()
        except EverpinError:
            return None
        process = self._running.get(live)
        return (live, process.returncode) if process is not None and process.poll() is not None else None

    def follow(self, now: Callable[[], float] = time.monotonic) -> None:
        """Bring the workers to what alias and rollout say; `problem` says why that cannot be."""
        try:
            wanted = self._installation.models()
            self.problem = ""
        except EverpinError as error:
            if self.problem != str(error):
                log.error("workers stay as they are: %s", error)
            self.problem = str(error)
            return
        for model_id in [model_id for model_id in self._running if model_id not in wanted]:
            self._end(model_id)
        live = next(iter(wanted))
        for model_id, folder in wanted.items():
            if model_id not in self._running:
                self._start(model_id, folder)
            elif model_id != live and self._running[model_id].poll() is not None:
                self._restart(model_id, folder, now())

    def close(self) -> None:
        """Stop every worker."""
        for model_id in list(self._running):
            self._end(model_id)

    def _start(self, model_id: str, folder: Path) -> None:
        log.info("starting a worker of %s", model_id)
        stack = self._stacks[model_id] = ExitStack()
        config = of_model(self._config, folder).model_copy(update={"http_port": 0})  # the named port is the first worker's
        self._running[model_id] = stack.enter_context(worker_process(config, self._broker, self._log_file))

    def _end(self, model_id: str) -> None:
        log.info("stopping the worker of %s", model_id)
        stop(self._running.pop(model_id))
        if stack := self._stacks.pop(model_id, None):
            stack.close()
        self._again_at.pop(model_id, None)

    def _restart(self, model_id: str, folder: Path, now: float) -> None:
        at, delay = self._again_at.get(model_id, (now + FIRST_RESTART_S, FIRST_RESTART_S))
        self._again_at[model_id] = at, delay
        if now < at:
            return
        log.error("the worker of %s ended with exit code %s; starting it again", model_id, self._running[model_id].returncode)
        if stack := self._stacks.pop(model_id, None):
            stack.close()
        self._look_again(model_id)
        self._start(model_id, folder)
        longer = min(2 * delay, LONGEST_RESTART_S)
        self._again_at[model_id] = now + longer, longer

    def _look_again(self, model_id: str) -> None:
        """Take back that every pin was looked at."""
        try:
            rollout: Rollout | None = self._installation.state.read()
            if rollout and rollout.candidate == model_id and self._broker.embedded:
                self._installation.state.replace(rollout, rollout.changed(filled_us=0, missed_us=now_us()))
        except EverpinError as error:
            log.error("the rollout could not be told that a worker of %s missed events: %s", model_id, error)
