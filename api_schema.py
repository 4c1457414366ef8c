"""OpenAPI for what FastAPI can't see: bodies that are read by hand, and the schemas that only they and errors use."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from data_models import Problem, ProductChanges, ProductFields, SearchRequest

REF_TEMPLATE = "#/components/schemas/{model}"
IMAGE_FILE = {"type": "string", "format": "binary", "description": "A JPEG, PNG, WebP, GIF or BMP file."}
SEARCH_EXAMPLES = {
    "A2 text to text": {"value": {"mode": "text_to_text", "text": "红色布艺沙发", "top_k": 5}},
    "A4 text to picture": {
        "value": {"mode": "text_to_image", "text": "a wooden chair", "filters": {"category": ["椅凳"]}}
    },
    "A1 more like this product": {"value": {"mode": "image_to_image", "product_id": 1}},
}


def multipart_body(model: type[ProductFields] | type[ProductChanges]) -> dict[str, Any]:
    """A product's form: the fields of `model`, with attributes as JSON text, and the picture."""
    schema = model.model_json_schema()
    properties = schema["properties"]
    properties["attributes"] = {"type": "string", "description": 'A JSON object, such as {"颜色": "红"}.'}
    properties["image"] = IMAGE_FILE
    properties["generated_image_id"] = {
        "type": "integer",
        "description": "A picture of a generation job, instead of a file.",
    }
    body: dict[str, Any] = {"type": "object", "properties": properties}
    if model is ProductFields:
        body["required"] = ["title"]
    return _request_body({"multipart/form-data": {"schema": body, "example": _product_example(model)}})


def search_body() -> dict[str, Any]:
    schema = SearchRequest.model_json_schema(ref_template=REF_TEMPLATE)
    schema.pop("$defs")
    properties = schema["properties"] | {
        "filters": {"type": "string", "description": "The filters as JSON text."},
        "image": IMAGE_FILE,
    }
    form = schema | {"properties": properties}
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
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas: dict[str, Any] = document["components"]["schemas"]
        for model in (SearchRequest, Problem):
            schemas.update(_component_schemas(model))
        for unused in ("HTTPValidationError", "ValidationError"):  # ours is Problem
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _component_schemas(model: type[BaseModel]) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "validation")], ref_template=REF_TEMPLATE)
    return dict(definitions["$defs"])


def _request_body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


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
