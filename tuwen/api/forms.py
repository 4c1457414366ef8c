"""Request bodies that are read by hand: forms with a picture, JSON whose errors are worded here, and their OpenAPI.

FastAPI can't see such a body, so what is read here is described here too.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.datastructures import FormData, UploadFile

from data_models import (
    MAX_IMAGES,
    PICTURE_FORMATS_IN_WORDS,
    BatchChanges,
    ImageOrder,
    Problem,
    ProductChanges,
    ProductFields,
    SearchRequest,
)
from tuwen.api.form_parsing import PICTURE, PICTURES, parse_form
from tuwen.api.problems import as_invalid_input
from tuwen.catalogue.limits import require_within_limits
from tuwen.errors import InvalidInput, MalformedRequest, UnsupportedMediaType
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.decoder import PictureDecoder
from tuwen.settings import Settings

Model = TypeVar("Model", bound=BaseModel)
Fields = TypeVar("Fields", ProductFields, ProductChanges)

MAX_ID_DIGITS = 18  # below 2**63
REF_TEMPLATE = "#/components/schemas/{model}"
IMAGE_FILE = {"type": "string", "format": "binary", "description": f"A {PICTURE_FORMATS_IN_WORDS} file."}
GENERATED_IMAGE = "A picture of a generation job, instead of a file."
SEARCH_EXAMPLES = {
    "A2 text to text": {"value": {"mode": "text_to_text", "text": "红色布艺沙发", "top_k": 5}},
    "A4 text to picture": {
        "value": {"mode": "text_to_image", "text": "a wooden chair", "filters": {"category": ["椅凳"]}}
    },
    "A1 more like this product": {"value": {"mode": "image_to_image", "product_id": 1}},
}


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[FormData]:
    if content_type(request) not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise UnsupportedMediaType(
            f"{request.method} {request.url.path} takes multipart/form-data"
            f"{' or application/json' if request.url.path == '/search' else ''}, not {content_type(request)!r}."
        )
    form = await parse_form(request)
    try:
        yield form
    finally:
        await form.close()


def require_json(request: Request) -> None:
    if content_type(request) != "application/json":
        raise UnsupportedMediaType(
            f"{request.method} {request.url.path} takes application/json, not {content_type(request)!r}."
        )


async def read_json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MalformedRequest("The body must be a JSON object.")
    return body


def _text_fields(form: FormData) -> dict[str, Any]:
    """Every field but the picture; a file under another name is told apart as such by the validation."""
    return {name: value for name, value in form.items() if name != PICTURE}


def product_fields(model: type[Fields], form: FormData, settings: Settings) -> Fields:
    fields = _text_fields(form)
    fields.pop("generated_image_id", None)  # stands for the picture, see `generated_image_id`
    if model is ProductFields:
        fields.pop(PICTURES, None)
    for name, declared in model.model_fields.items():
        if declared.default is None and fields.get(name) == "":
            fields[name] = None  # may be empty, and was sent empty to clear it
    if "attributes" in fields:
        fields["attributes"] = json_object("attributes", fields["attributes"])
    product = validated(model, fields)
    require_within_limits(product, settings)
    return product


def search_form(form: FormData) -> dict[str, Any]:
    fields = {name: value for name, value in _text_fields(form).items() if value != ""}
    if "filters" in fields:
        fields["filters"] = json_object("filters", fields["filters"])
    for name in ("facets", "boost"):
        if name in fields:
            fields[name] = _json(name, fields[name])
    return fields


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def json_object(field: str, value: object) -> dict[str, Any]:
    decoded = _json(field, value or "{}")
    if not isinstance(decoded, dict):
        raise InvalidInput.in_field(field, 'must be a JSON object, such as {"颜色": "红"}')
    return decoded


def _json(field: str, value: object) -> Any:
    try:
        return json.loads(str(value), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidInput.in_field(field, "nests too deep; flatten it") from error
    except ValueError as error:
        raise InvalidInput.in_field(field, f"is not JSON: {error}") from error


def validated(model: type[Model], fields: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise as_invalid_input(error) from error


async def uploaded_bytes(form: FormData) -> bytes | None:
    upload = _upload(form)
    return None if upload is None else await upload.read()


def _upload(form: FormData) -> UploadFile | None:
    return _file(PICTURE, form.get(PICTURE))


def _file(field: str, upload: UploadFile | str | None) -> UploadFile | None:
    """None for a browser's input that nothing was chosen in, too, which is empty and without a name."""
    if upload is None or upload == "":
        return None
    if not isinstance(upload, UploadFile):
        raise InvalidInput.in_field(field, "must be a file, not text; send multipart/form-data")
    return upload if upload.size or upload.filename else None


async def checked_upload(form: FormData, decoder: PictureDecoder) -> CheckedImage | None:
    data = await uploaded_bytes(form)
    return None if data is None else await decoder.check(data)


async def checked_uploads(form: FormData, decoder: PictureDecoder) -> list[CheckedImage]:
    """The further pictures of a product, one after another."""
    files = [file for each in form.getlist(PICTURES) if (file := _file(PICTURES, each)) is not None]
    if len(files) >= MAX_IMAGES:
        raise InvalidInput.in_field(PICTURES, f"is one too many: a product has {MAX_IMAGES} pictures at most")
    images = []
    for number, file in enumerate(files):
        try:
            images.append(await decoder.check(await file.read()))
        except InvalidInput as error:  # of which it is
            raise type(error).in_field(f"{PICTURES}.{number}", error.errors[0].message) from error
    return images


def generated_image_id(form: FormData) -> int | None:
    """Names a generated picture instead of a file; both at once are refused."""
    text = form.get("generated_image_id")
    if text is None or text == "":
        return None
    if _upload(form) is not None:
        raise InvalidInput.in_field("generated_image_id", "comes with a file; send one of the two")
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > MAX_ID_DIGITS:
        raise InvalidInput.in_field("generated_image_id", "must be the image_id of a generated picture")
    return int(text)


# --- The same bodies as OpenAPI ---------------------------------------------------------------------------------------


def multipart_body(model: type[ProductFields] | type[ProductChanges]) -> dict[str, Any]:
    """A product's form: the fields of `model`, with attributes as JSON text, and the picture."""
    schema = model.model_json_schema()
    properties = schema["properties"]
    properties["attributes"] = {"type": "string", "description": 'A JSON object, such as {"颜色": "红"}.'}
    properties["image"] = IMAGE_FILE
    properties["generated_image_id"] = {"type": "integer", "description": GENERATED_IMAGE}
    body: dict[str, Any] = {"type": "object", "properties": properties}
    if model is ProductFields:
        further = f"Further pictures, in order: up to {MAX_IMAGES - 1} fields of this name."
        properties["images"] = {"type": "array", "items": IMAGE_FILE, "description": further}
        body["required"] = ["title"]
    return _request_body({"multipart/form-data": {"schema": body, "example": _product_example(model)}})


def picture_body() -> dict[str, Any]:
    properties = {
        "image": IMAGE_FILE,
        "generated_image_id": {"type": "integer", "description": GENERATED_IMAGE},
        "position": {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES, "description": "By default the last."},
    }
    return _request_body({"multipart/form-data": {"schema": {"type": "object", "properties": properties}}})


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Of a model that `install_openapi` describes."""
    schema = {"$ref": REF_TEMPLATE.format(model=model.__name__)}
    return _request_body({"application/json": {"schema": schema, "example": example}})


def search_body() -> dict[str, Any]:
    schema = SearchRequest.model_json_schema(ref_template=REF_TEMPLATE)
    schema.pop("$defs")
    properties = schema["properties"] | {
        "filters": {"type": "string", "description": "The filters as JSON text."},
        "facets": {"type": "string", "description": 'The facets as JSON text, such as ["category"].'},
        "boost": {"type": "string", "description": "The boosts as JSON text."},
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
        for model in (SearchRequest, BatchChanges, ImageOrder, Problem):
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
