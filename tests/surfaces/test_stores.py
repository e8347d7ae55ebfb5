"""What a serving process opens: a Qdrant server with its alias, or the embedded index, owned by it or read through its owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from everpin.importers import PinRow, read_jsonl
from everpin.owner import Owner, announce, live_owner, ownership, place
from everpin.serving import EmbeddedStores, LiveModels, ServerStores, open_stores
from everpin.settings import Settings
from everpin.wiring import build_encoder
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.qdrant import connect
from index.rollout import QdrantAlias
from pins.errors import Unavailable
from pins.events import PinUpdated
from pins.indexer import PinIndexer
from pins.ports import PinIndex
from pins.retrieval.search import search
from tests.fakes import FakeFeatures
from tests.services.qdrant import qdrant_double
from tests.serving import serving
from tests.surfaces.parts import BASE_MODEL, SAMPLE, T0

QUERY = "overnight sourdough for absolute beginners"


def fill(index: PinIndex, config: Settings) -> None:
    features, rows = FakeFeatures(), [row for row in read_jsonl(SAMPLE) if isinstance(row, PinRow)][:20]
    features.write([feature for row in rows for feature in row.rows(T0)])
    PinIndexer(features, build_encoder(config), index, lambda: T0 + 1).apply([PinUpdated(row.pin_id, T0) for row in rows])


def best(live: LiveModels) -> str:
    return search(QUERY, live.now.encoder, live.now.index)[0].pin_id


@pytest.fixture
def server() -> Iterator[str]:
    with qdrant_double() as (url, _):
        yield url


def test_a_servers_alias_is_followed(tmp_path: Path, server: str) -> None:
    config = Settings(home=tmp_path, qdrant_url=server)
    with ExitStack() as stack:
        stores = open_stores(config, stack)
        assert isinstance(stores, ServerStores)
        live = LiveModels(config, stores)
        stack.callback(live.close)
        fill(live.now.index, config)
        assert (live.now.model_id, best(live)) == ("everpin-l6-v1", "food-001")
        other = stores.index("minilm-l6-v1", 384)
        fill(other, config.model_copy(update={"model": BASE_MODEL}))
        QdrantAlias(connect(server)).point("minilm-l6-v1")
        live.refresh()
        assert (live.now.model_id, live.now.index.model_id, best(live)) == ("minilm-l6-v1", "minilm-l6-v1", "food-001")


def test_a_silent_server_leaves_the_model_before_it(tmp_path: Path) -> None:
    with ExitStack() as stack, qdrant_double() as (url, stop):
        config = Settings(home=tmp_path, qdrant_url=url, qdrant_timeout_s=1)
        live = LiveModels(config, open_stores(config, stack))
        stack.callback(live.close)
        before = live.now
        stop.kill()
        stop.wait()
        live.refresh()
        assert live.now is before
        assert "does not" in live.problem


def test_without_an_owner_the_embedded_index_is_owned(tmp_path: Path) -> None:
    config = Settings(home=tmp_path)
    with ExitStack() as stack:
        live = LiveModels(config, open_stores(config, stack))
        stack.callback(live.close)
        fill(live.now.index, config)
        assert best(live) == "food-001"
        mine = place(tmp_path, "everpin-l6-v1")
        owner = live_owner(mine)
        assert owner is not None
        assert owner.purpose == "serve"
        with pytest.raises(Unavailable, match="serve"), ownership(mine, "worker"):
            pass
    assert live_owner(mine) is None


def test_beside_an_owner_the_index_is_read_through_it_and_found_again_when_it_moves(tmp_path: Path) -> None:
    config = Settings(home=tmp_path)
    mine = place(tmp_path, "everpin-l6-v1")
    with ownership(mine, "worker"):
        index = EdgePinIndex(config.index_home, "everpin-l6-v1", 384)
        fill(index, config)
        with ExitStack() as stack:
            with serving(index) as url:
                announce(mine, Owner(1, url))
                stores = open_stores(config, stack)
                assert isinstance(stores, EmbeddedStores)
                live = LiveModels(config, stores)
                assert isinstance(live.now.index, LoopbackPinIndex)
                assert best(live) == "food-001"
                encoder = live.now.encoder
            with pytest.raises(Unavailable):
                best(live)
            with serving(index) as url:
                announce(mine, Owner(1, url))
                live.refresh()
                assert best(live) == "food-001"
                assert live.now.encoder is encoder
                live.close()
        index.close()


def test_an_owner_without_routes_is_waited_for(tmp_path: Path) -> None:
    with ownership(place(tmp_path, "everpin-l6-v1"), "worker"), ExitStack() as stack, pytest.raises(Unavailable, match="everpin status"):
        LiveModels(Settings(home=tmp_path), open_stores(Settings(home=tmp_path), stack))
