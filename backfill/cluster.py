"""Ray: one on this machine for the time of a run, or a cluster by address, and the pool of workers that Ray Data keeps on it. Nothing else knows Ray."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from backfill.blocks import Block, BlockReport
from backfill.stores import Setting, Stores
from backfill.worker import BlockWorker
from everpin.wiring import now_us
from pins.errors import EverpinError, Unavailable

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_memory_monitor_refresh_ms": "0",  # what else runs on this machine is no reason to kill our workers
    "RAY_worker_niceness": "5",  # searches and the stream go first; Ray's own 15 would all but stop a backfill beside them
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else standard output, where one JSON document is promised, has its messages too
}
"""Read by Ray when it is imported or started; what the environment says already is kept."""
OBJECT_STORE_BYTES = 128 << 20
"""Pin ids and counts travel, nothing large."""
TRIES = 3
"""How often a block is given to a worker that dies of it, before it is left to be tried in smaller blocks."""
FOLDER = "everpin-ray-"
REACH_S = 10.0


class _Embedder:
    """The worker as Ray Data keeps it: a table of one block in, a table of its report out."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config
        self._worker = BlockWorker(Stores(setting), config.retry_budget_s, config.vanished_limit, now_us)

    def __call__(self, table: pa.Table) -> pa.Table:
        snapshots = table["snapshot"].to_pylist()
        block = Block(table["start"][0].as_py(), table["pin_id"].to_pylist(), snapshots if any(snapshots) else ())
        return pa.table({"report": [self._worker.work(block).to_json()]})


class RayPool:
    """A `Pool` on a Ray that runs: each `run` is one streaming execution of Ray Data over a pool of `workers` actors."""

    def __init__(self, ray: Any, setting: Setting, workers: int, cpus: float) -> None:
        self._ray, self._setting, self._workers, self._cpus = ray, setting, workers, cpus

    def run(self, blocks: Sequence[Block]) -> Iterator[BlockReport]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `max_task_retries` is to get another spelling after Ray 2.63, which is pinned
            embedded = self._embedded(blocks)
        try:
            for reports in embedded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from map(BlockReport.from_json, reports["report"].to_pylist())
        except self._ray.exceptions.RayError as error:
            raise Unavailable(f"Ray gave up: {error}") from error

    def _embedded(self, blocks: Sequence[Block]) -> Any:
        data = self._ray.data
        tables = [_table(block) for block in blocks]
        return data.from_arrow(tables).map_batches(
            _Embedder,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(self._setting,),
            compute=data.ActorPoolStrategy(size=self._workers),
            num_cpus=self._cpus,
            max_task_retries=TRIES - 1,
        )


@contextmanager
def ray_pool(setting: Setting, workers: int, address: str | None) -> Iterator[RayPool]:
    """A pool of `workers` for the time of the block: on the cluster at `address`, or on a Ray of our own. Raises EverpinError, Unavailable."""
    if address:
        require_reachable(address)
    ray = _imported()
    with _quiet_folder() as folder:
        mine = {"num_cpus": workers, "num_gpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
        try:
            with _silent():
                ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else mine))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"at {address} does not let us in (is its token in RAY_AUTH_TOKEN or ~/.ray/auth_token?)" if address else "does not start here"
            raise Unavailable(f"Ray {where}: {error}") from error
        try:
            _configure(ray)
            yield RayPool(ray, setting, workers, setting.threads if address else 1)
        finally:
            ray.shutdown()


def require_ray() -> None:
    """Raises EverpinError that says what to install."""
    if find_spec("ray") is None:
        raise EverpinError("a backfill runs on Ray Data, which is not installed: pip install everpin[backfill]")


def require_reachable(address: str) -> None:
    """Whether somebody listens at HOST:PORT: Ray itself would ask for minutes. Raises Unavailable, and EverpinError for what Ray Data cannot use."""
    if address.startswith("ray://"):
        raise EverpinError(f"Ray Data does not run through Ray's client ({address}); run this on a node of the cluster with --address auto, or HOST:6379")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except OSError as error:
        raise Unavailable(f"no Ray answers at {address}: {error}; check --address") from error


def _imported() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415  an extra, and slow to import
    import ray.data  # noqa: PLC0415
    import ray.exceptions  # noqa: PLC0415

    return ray


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's own code says on standard error, past Python, that it will say nothing there."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _configure(ray: Any) -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Data warns of its own settings when it makes them
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a block that kills its worker is tried again in smaller ones
    context.print_on_execution_start = False


def _table(block: Block) -> pa.Table:
    count = len(block.pin_ids)
    columns = {"start": pa.array([block.start] * count, pa.int64()), "pin_id": pa.array(block.pin_ids, pa.string())}
    return pa.table(columns | {"snapshot": pa.array(block.snapshots or [""] * count, pa.string())})


@contextmanager
def _quiet_folder() -> Iterator[str]:
    """A folder of a short path for Ray's sockets and logs, which go with it. What a killed run left behind goes too."""
    home = Path(tempfile.gettempdir())
    for old in home.glob(f"{FOLDER}*"):
        pid = old.name.removeprefix(FOLDER).partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=home)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, signal.SIG_DFL)
        except ProcessLookupError:
            return False
    return True
