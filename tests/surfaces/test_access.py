from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from everpin.keys import Scope, add_key, revoke_key
from everpin.settings import Settings
from pins.errors import ArtifactError
from surfaces.app import serve
from tests.surfaces.parts import Running, running

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEARCH = {"query": "bread", "limit": 1}


def key(home: Path, *scopes: Scope, rate: float = 0.0, burst: float | None = None) -> str:
    return add_key(home, "test", frozenset(scopes), rate, burst, NOW)[1]


def ask(run: Running, text: str | None, method: str = "POST", path: str = "/v1/search", body: Any = SEARCH) -> Any:
    headers = {} if text is None else {"Authorization": f"Bearer {text}"}
    return run.client.request(method, path, json=body if method != "GET" else None, headers=headers)


def test_with_keys_every_route_with_a_scope_wants_one(tmp_path: Path) -> None:
    reader = key(tmp_path, "read")
    with running(tmp_path, pins=10) as run:
        refused = ask(run, None)
        assert (refused.status_code, refused.headers["www-authenticate"], refused.json()["type"]) == (401, "Bearer", "/problems/no-key")
        assert ask(run, "ep_000000000000_" + "x" * 43).status_code == 401
        assert ask(run, reader[:-1] + ("A" if reader[-1] != "A" else "B")).status_code == 401
        assert ask(run, reader).status_code == 200
        for path in ("/v1/pins/food-001", "/v1/pins/food-001/related", "/v1/users/u/feed", "/v1/map", "/metrics"):
            assert ask(run, None, "GET", path).status_code == 401, path
        for path in ("/livez", "/readyz", "/version", "/"):
            assert ask(run, None, "GET", path).status_code == 200, path


def test_a_scope_opens_its_routes_only(tmp_path: Path) -> None:
    reader, writer, admin = key(tmp_path, "read"), key(tmp_path, "write"), key(tmp_path, "admin")
    edit = {"title": "x"}
    with running(tmp_path, pins=10) as run:
        refused = ask(run, reader, "PATCH", "/v1/pins/food-001", edit)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/scope")
        assert ask(run, writer, "PATCH", "/v1/pins/food-001", edit).status_code == 202
        assert ask(run, writer).status_code == 403
        assert ask(run, reader, "GET", "/metrics").status_code == 403
        figures = ask(run, admin, "GET", "/metrics")
        assert figures.status_code == 200
        assert 'everpin_http_refused_total{status="403"} 3.0' in figures.text


def test_each_key_has_its_own_rate(tmp_path: Path) -> None:
    slow, other = key(tmp_path, "read", rate=0.01, burst=2.0), key(tmp_path, "read", rate=0.01, burst=1.0)
    with running(tmp_path, pins=10) as run:
        assert [ask(run, slow).status_code for _ in range(3)] == [200, 200, 429]
        assert int(ask(run, slow).headers["retry-after"]) >= 1
        assert ask(run, other).status_code == 200


def test_a_revoked_key_is_refused_and_the_api_does_not_fall_open(tmp_path: Path) -> None:
    text = key(tmp_path, "read")
    revoke_key(tmp_path, text.split("_")[1], NOW)
    with running(tmp_path, pins=10) as run:
        assert ask(run, text).status_code == 401
        assert ask(run, None).status_code == 401


def test_no_key_is_ever_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = key(tmp_path, "read", rate=0.01, burst=1.0)
    with caplog.at_level(logging.DEBUG), running(tmp_path, pins=10) as run:
        for path in ("/v1/search", "/v1/nothing"):
            for given in (text, text[:-1], f"{text}x"):
                assert text.split("_", 2)[2] not in ask(run, given, path=path).text
    assert text.split("_", 2)[2][:20] not in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_open_api_never_leaves_loopback(tmp_path: Path, host: str) -> None:
    with pytest.raises(ArtifactError, match="everpin keys add"):
        serve(Settings(home=tmp_path, host=host))
