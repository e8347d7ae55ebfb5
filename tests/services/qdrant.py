"""A stand-in for a Qdrant server: the REST routes that `index.qdrant` uses, over the client library's own local engine.

No Qdrant server can be had from pip or Debian, so faults of one (down at start, dying under load, slow) are played on this
process, which speaks the same protocol and may be killed. It is a test double: set EVERPIN_TEST_QDRANT for a real server.
Run by hand: python -m tests.services.qdrant PORT
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from qdrant_client import QdrantClient, models

from tests.faults.processes import WorkerProcess, start
from tests.services.process import free_port


def front(engine: QdrantClient) -> FastAPI:
    app = FastAPI()

    @app.exception_handler(ValueError)
    def missing(request: Request, error: ValueError) -> JSONResponse:
        """The local engine raises ValueError for a collection that is not there; a server answers 404."""
        return JSONResponse({"status": {"error": str(error)}}, 404 if "not found" in str(error) else 400)

    def ok(result: Any) -> dict[str, Any]:
        return {"result": result, "status": "ok", "time": 0.0}

    @app.get("/aliases")
    def aliases() -> dict[str, Any]:
        return ok(engine.get_aliases().model_dump(mode="json"))

    @app.post("/collections/aliases")
    def change_aliases(body: models.ChangeAliasesOperation) -> dict[str, Any]:
        return ok(engine.update_collection_aliases(body.actions))

    @app.get("/collections")
    def collections() -> dict[str, Any]:
        return ok(engine.get_collections().model_dump(mode="json"))

    @app.get("/collections/{name}/exists")
    def exists(name: str) -> dict[str, Any]:
        return ok({"exists": engine.collection_exists(name)})

    @app.get("/collections/{name}")
    def get(name: str) -> dict[str, Any]:
        return ok(engine.get_collection(name).model_dump(mode="json"))

    @app.put("/collections/{name}")
    def create(name: str, body: models.CreateCollection) -> dict[str, Any]:
        return ok(engine.create_collection(name, vectors_config=body.vectors, sparse_vectors_config=body.sparse_vectors))

    @app.put("/collections/{name}/vectors/{vector}")
    def create_vector_name(name: str, vector: str, body: models.SparseVectorNameConfig) -> dict[str, Any]:
        engine.create_vector_name(name, vector, body)
        return ok({"operation_id": 0, "status": "completed"})

    @app.put("/collections/{name}/index")
    def index(name: str) -> dict[str, Any]:
        return ok({"operation_id": 0, "status": "completed"})

    @app.put("/collections/{name}/points")
    def upsert(name: str, body: models.PointsList) -> dict[str, Any]:
        engine.upsert(name, points=body.points, update_filter=body.update_filter)
        return ok({"operation_id": 0, "status": "completed"})

    @app.post("/collections/{name}/points")
    def retrieve(name: str, body: models.PointRequest) -> dict[str, Any]:
        return ok([p.model_dump(mode="json") for p in engine.retrieve(name, body.ids, with_payload=body.with_payload, with_vectors=body.with_vector or False)])

    @app.put("/collections/{name}/points/vectors")
    def update_vectors(name: str, body: models.UpdateVectors) -> dict[str, Any]:
        engine.update_vectors(name, points=body.points, update_filter=body.update_filter)
        return ok({"operation_id": 0, "status": "completed"})

    @app.post("/collections/{name}/points/query/batch")
    def query(name: str, body: models.QueryRequestBatch) -> dict[str, Any]:
        return ok([found.model_dump(mode="json") for found in engine.query_batch_points(name, body.searches)])

    @app.post("/collections/{name}/points/scroll")
    def scroll(name: str, body: models.ScrollRequest) -> dict[str, Any]:
        asked = {
            "limit": body.limit or 10,
            "offset": body.offset,
            "with_payload": True if body.with_payload is None else body.with_payload,
            "with_vectors": body.with_vector or False,
        }
        found, offset = engine.scroll(name, scroll_filter=body.filter, **asked)
        return ok({"points": [p.model_dump(mode="json") for p in found], "next_page_offset": offset})

    @app.post("/collections/{name}/points/delete")
    def delete(name: str, body: models.FilterSelector) -> dict[str, Any]:
        engine.delete(name, points_selector=body)
        return ok({"operation_id": 0, "status": "completed"})

    @app.put("/collections/{name}/points/payload")
    def overwrite_payload(name: str, body: models.SetPayload) -> dict[str, Any]:
        engine.overwrite_payload(name, payload=body.payload, points=body.points)
        return ok({"operation_id": 0, "status": "completed"})

    @app.delete("/collections/{name}")
    def drop(name: str) -> dict[str, Any]:
        return ok(engine.delete_collection(name))

    @app.post("/collections/{name}/points/count")
    def count(name: str, body: models.CountRequest) -> dict[str, Any]:
        return ok({"count": engine.count(name, count_filter=body.filter).count})

    return app


@contextmanager
def qdrant_double(port: int = 0) -> Iterator[tuple[str, WorkerProcess]]:
    """Run the stand-in as a process; yields its URL and the process, which a test may kill."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile(prefix="qdrant-", suffix=".log") as log:
        process = start("fork", os.environ, Path(log.name), "tests.services.qdrant", str(port))
        try:
            deadline = time.monotonic() + 30
            while not _answers(url):
                assert process.poll() is None, f"the Qdrant stand-in ended while starting:\n{Path(log.name).read_text()}"
                assert time.monotonic() < deadline, "the Qdrant stand-in did not start within 30 s"
                time.sleep(0.05)
            yield url, process
        finally:
            process.kill()
            process.wait()


def empty(url: str) -> None:
    """Delete every collection, and with them the aliases."""
    with httpx.Client(base_url=url) as client:
        for found in client.get("/collections").raise_for_status().json()["result"]["collections"]:
            client.delete(f"/collections/{found['name']}").raise_for_status()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/collections/none/exists", timeout=2).is_success
    except httpx.HTTPError:
        return False


def main() -> None:
    uvicorn.run(front(QdrantClient(":memory:")), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
