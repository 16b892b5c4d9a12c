"""The OpenAPI document, made from the table of endpoints and the types of requests and answers."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from recsys.serving.endpoints import ENDPOINTS, Endpoint
from recsys.serving.problems import CONTENT_TYPE, ProblemDetails

_REFERENCE = "#/components/schemas/{model}"


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the server."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    problem = _schema_of(ProblemDetails, schemas)
    for endpoint in ENDPOINTS:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, schemas, problem)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recsys",
            "version": version("recsys"),
            "description": "Lists, explanations and onboarding from saved models.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, path: str, schemas: dict[str, Any], problem: Any) -> dict[str, Any]:
    """Return one operation of the document, and add the schemas that it names."""
    failure = {"description": "why not", "content": {CONTENT_TYPE: {"schema": problem}}}
    success = {
        "description": endpoint.summary,
        "content": {"application/json": {"schema": _schema_of(endpoint.answer, schemas)}},
    }
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}{re.sub('[^a-z]+', '_', path)}",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _names(path)),
            *_parameters(endpoint),
        ],
        "responses": {str(endpoint.status): success, "4XX": failure, "5XX": failure},
        "security": [{}] if endpoint.is_open else [{}, {"key": []}],
    }
    if endpoint.body is not None:
        body = _schema_of(endpoint.body, schemas)
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation


def _names(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return the parameters of the URL."""
    schema = endpoint.query.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": kind}
        for name, kind in schema.get("properties", {}).items()
    ]


def _schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type, and add the schemas that it refers to."""
    adapter = TypeAdapter(kind)
    references, definitions = TypeAdapter.json_schemas(
        [("schema", "validation", adapter)],
        ref_template=_REFERENCE,
    )
    schemas.update(definitions.get("$defs", {}))
    return references["schema", "validation"]
