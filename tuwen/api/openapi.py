"""The OpenAPI document: bodies that are read by hand (see `forms`), and what any route answers besides its own.

`tests/api/test_contract.py` has schemathesis find out whether it is true.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from data_models import (
    MAX_IMAGES,
    PICTURE_FORMATS_IN_WORDS,
    BatchChanges,
    GenerateRequest,
    ImageOrder,
    NewApiKey,
    NewCalibration,
    Problem,
    ProductChanges,
    ProductFields,
    ReindexRequest,
    RollbackRequest,
    SearchRequest,
)
from tuwen.api.envelope import REQUEST_ID
from tuwen.api.problems import PROBLEM_JSON, problem_responses
from tuwen.errors import AppError, DependencyUnavailable, ImageTooLarge, MalformedRequest

Schema = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{model}"
IMAGE_FILE = {"type": "string", "format": "binary", "description": f"A {PICTURE_FORMATS_IN_WORDS} file."}
GENERATED_IMAGE = {
    "type": "integer",
    "minimum": 0,
    "maximum": 10**18 - 1,
    "description": "A picture of a generation job, instead of a file.",
}
EMPTY = {"type": "string", "const": ""}
SEARCH_EXAMPLES = {
    "A2 text to text": {"value": {"mode": "text_to_text", "text": "红色布艺沙发", "top_k": 5}},
    "A4 text to picture": {
        "value": {"mode": "text_to_image", "text": "a wooden chair", "filters": {"category": ["椅凳"]}}
    },
    "A1 more like this product": {"value": {"mode": "image_to_image", "product_id": 1}},
    "A1 like this product, but red": {
        "value": {"mode": "image_to_image", "terms": [{"product_id": 1}, {"text": "红色", "weight": 0.6}]}
    },
}
HEADERS: dict[str, Schema] = {
    "ETag": {"description": "For If-Match, or If-None-Match.", "schema": {"type": "string"}},
    "Location": {"description": "The address of what was made.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}},
    REQUEST_ID: {"description": "The request's own, or a new one.", "schema": {"type": "string"}},
    "Content-Language": {"description": "As Accept-Language asks.", "schema": {"enum": ["en", "zh"]}},
}
JSON_BODIES = (
    SearchRequest,
    BatchChanges,
    ImageOrder,
    GenerateRequest,
    ReindexRequest,
    RollbackRequest,
    NewCalibration,
    NewApiKey,
)
ASKS_NOBODY = "/health/live"


def sent(status: int, *names: str) -> dict[int | str, Schema]:
    """For a route's `responses`: headers that come with this status, always."""
    return {status: {"headers": _headers(*names)}}


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def multipart_body(model: type[ProductFields] | type[ProductChanges]) -> Schema:
    """A product's form: the fields of `model`, with attributes as JSON text, and the picture."""
    properties = _as_form(model.model_json_schema()["properties"])
    properties["attributes"] = {"type": "string", "description": 'A JSON object, such as {"颜色": "红"}; or empty.'}
    properties["image"] = IMAGE_FILE
    properties["generated_image_id"] = GENERATED_IMAGE
    body: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if model is ProductFields:
        further = f"Further pictures, in order: up to {MAX_IMAGES - 1} fields of this name."
        properties["images"] = {
            "type": "array",
            "items": IMAGE_FILE,
            "maxItems": MAX_IMAGES - 1,
            "description": further,
        }
        body["required"] = ["title"]
    return _request_body({"multipart/form-data": {"schema": body, "example": _product_example(model)}})


def picture_body() -> Schema:
    properties = {
        "image": IMAGE_FILE,
        "generated_image_id": GENERATED_IMAGE,
        "position": {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES, "description": "By default the last."},
    }
    body = {"type": "object", "properties": properties, "additionalProperties": False}
    return _request_body({"multipart/form-data": {"schema": body}})


def json_body(model: type[BaseModel], example: dict[str, Any] | None = None, *, required: bool = True) -> Schema:
    """Of one of JSON_BODIES."""
    content: Schema = {"schema": {"$ref": REF_TEMPLATE.format(model=model.__name__)}}
    if example is not None:
        content["example"] = example
    return _request_body({"application/json": content}, required=required)


def search_body() -> Schema:
    schema = SearchRequest.model_json_schema(ref_template=REF_TEMPLATE)
    schema.pop("$defs")
    properties = _as_form(schema["properties"]) | {
        "filters": {"type": "string", "description": "The filters as JSON text."},
        "facets": {"type": "string", "description": 'The facets as JSON text, such as ["category"].'},
        "boost": {"type": "string", "description": "The boosts as JSON text."},
        "terms": {"type": "string", "description": "The terms as JSON text."},
        "image": IMAGE_FILE,
    }
    left_out = {name: field if name == "mode" else _left_out_if_empty(field) for name, field in properties.items()}
    form = schema | {"properties": left_out}
    return _request_body(
        {
            "application/json": {
                "schema": {"$ref": REF_TEMPLATE.format(model="SearchRequest")},
                "examples": SEARCH_EXAMPLES,
            },
            "multipart/form-data": {"schema": form},
        }
    )


def install_openapi(app: FastAPI) -> None:
    """Last, since it completes what others add."""
    generate = app.openapi

    def openapi() -> Schema:
        if app.openapi_schema is None:
            document = generate()
            _complete(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _complete(document: Schema) -> None:
    document["components"]["headers"] = {name: header | {"required": True} for name, header in HEADERS.items()}
    schemas: Schema = document["components"]["schemas"]
    for model in (*JSON_BODIES, Problem):
        schemas.update(_component_schemas(model))
    for unused in ("HTTPValidationError", "ValidationError"):  # ours is Problem
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _add_what_any_route_answers(path, operation)


def _add_what_any_route_answers(path: str, operation: Schema) -> None:
    errors: list[type[AppError]] = [AppError]
    if path != ASKS_NOBODY:
        errors.append(DependencyUnavailable)
    if "requestBody" in operation:
        errors += [MalformedRequest, ImageTooLarge]
    responses = operation["responses"]
    for status, response in problem_responses(*errors).items():
        responses.setdefault(str(status), response)
    for status, response in responses.items():
        names = [REQUEST_ID]
        if PROBLEM_JSON in response.get("content", {}):
            names += ["Content-Language", "Retry-After"] if status in ("429", "503") else ["Content-Language"]
        response["headers"] = response.get("headers", {}) | _headers(*names)
    operation["responses"] = dict(sorted(responses.items()))


def _as_form(properties: Schema) -> Schema:
    """A form has no null: what is there to be cleared is sent empty, and a price as text."""
    return {name: _form_field(schema) for name, schema in properties.items()}


def _form_field(schema: Schema) -> Schema:
    alternatives = schema.get("anyOf", [])
    if {"type": "null"} not in alternatives:
        return schema
    kept = [each for each in alternatives if each != {"type": "null"}]
    return _or_empty({key: value for key, value in schema.items() if key not in ("anyOf", "default")}, *kept)


def _or_empty(described: Schema, *alternatives: Schema) -> Schema:
    is_any_text = any(set(each) <= {"type", "maxLength"} and each["type"] == "string" for each in alternatives)
    if is_any_text and len(alternatives) == 1:
        return described | alternatives[0]
    return described | {"anyOf": [*alternatives] if is_any_text else [*alternatives, EMPTY]}


def _left_out_if_empty(field: Schema) -> Schema:
    """A page sends its empty fields, too, and they say nothing."""
    if "anyOf" in field or field is IMAGE_FILE:
        return field
    described: Schema = {key: field[key] for key in ("description", "title") if key in field}
    return _or_empty(described, {key: value for key, value in field.items() if key not in described})


def _component_schemas(model: type[BaseModel]) -> Schema:
    _, definitions = models_json_schema([(model, "validation")], ref_template=REF_TEMPLATE)
    return dict(definitions["$defs"])


def _request_body(content: Schema, *, required: bool = True) -> Schema:
    return {"requestBody": {"required": required, "content": content}}


def _product_example(model: type[BaseModel]) -> dict[str, str]:
    if model is ProductChanges:
        return {"price": "1799.00"}
    return {
        "title": "红色布艺三人沙发",
        "sku": "SOFA-001",
        "category": "沙发",
        "price": "1999.00",
        "attributes": '{"颜色": "红"}',
    }
