"""The API is what its OpenAPI document says, whatever it is asked."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from shardwright.service.app import create_app
from shardwright.service.settings import Limits, Settings

pytest_plugins = ("service.served",)
TOKEN = "a-token-of-enough-characters"
CHECKS = (
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


@pytest.fixture(scope="module")
def api(code_folder: Path, image_folder: Path) -> schemathesis.schemas.BaseSchema:
    limits = Limits(sql_seconds=2.0, requests_a_minute=0)
    app = create_app(Settings({"code": code_folder, "images": image_folder}, TOKEN, limits))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_conforms(api: schemathesis.schemas.BaseSchema) -> None:
    asked = []
    for result in api.get_all_operations():
        operation = result.ok()
        asked.append(operation.label)

        @given(case=operation.as_strategy())
        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            path = case.path_parameters or {}
            if len(str(path.get("name", ""))) % 2:
                path["name"] = "code"  # else no request would find one
            case.headers["Authorization"] = f"Bearer {TOKEN}"
            case.validate_response(case.call(), checks=CHECKS)

        ask()
    assert len(asked) == 14
