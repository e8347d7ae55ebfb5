"""The application keeps what its OpenAPI document says, for requests that fit it and for requests that do not (Schemathesis)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from everpin.keys import SCOPES, add_key, utc_now
from surfaces.arrival import Limits
from tests.surfaces.parts import running

EXAMPLES = int(os.environ.get("EVERPIN_TEST_SCHEMA", "25"))
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance,
    negative_data_rejection, unsupported_method,
]  # fmt: skip
REFUSALS = [400, 401, 403, 404, 405, 408, 410, 413, 414, 415, 421, 422, 429, 431]
"""What a request that does not fit the document may be answered; no 5xx is among them."""
OPERATIONS = [
    "POST /v1/search", "GET /v1/pins/{pin_id}/related", "GET /v1/users/{user_id}/feed", "PATCH /v1/pins/{pin_id}", "GET /v1/pins/{pin_id}", "POST /v1/events",
    "POST /v1/users/{user_id}/actions", "POST /v1/embeddings", "GET /v1/map", "GET /livez", "GET /readyz", "GET /version", "GET /metrics",
]  # fmt: skip


@dataclass(frozen=True)
class Described:
    """The operations of the running application's own document, by method and path, and a key for all of them."""

    operations: dict[str, Any]
    key: str


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    home = tmp_path_factory.mktemp("schema")
    _, key = add_key(home, "schema", frozenset(SCOPES), 0, None, utc_now())
    with running(home, limits=replace(Limits(), queue_ms=60_000)) as app:
        config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
        document = schemathesis.openapi.from_url(f"{app.client.base_url}/openapi.json", config=config)
        yield Described({found.ok().label: found.ok() for found in document.get_all_operations()}, key)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


def test_every_operation_is_tested(described: Described) -> None:
    assert list(described.operations) == OPERATIONS


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers_are_what_the_document_says(operation: str, mode: GenerationMode, described: Described, session: requests.Session) -> None:
    found = described.operations[operation]
    if mode is GenerationMode.NEGATIVE and not (found.body or found.query or found.path_parameters):
        return  # there is nothing that could be wrong

    @given(case=found.as_strategy(generation_mode=mode, headers={"Authorization": f"Bearer {described.key}"}))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def answered(case: schemathesis.Case) -> None:
        case.call_and_validate(session=session, checks=CHECKS)

    answered()
