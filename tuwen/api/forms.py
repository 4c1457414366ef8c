"""Request bodies that are read by hand: forms with a picture, JSON whose errors are worded here.

FastAPI can't see such a body, so what is read here is described in `openapi`.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from data_models import (
    MAX_IMAGES,
    ProductChanges,
    ProductFields,
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


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[FormData]:
    if content_type(request) not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise UnsupportedMediaType(
            f"{request.method} {request.url.path} takes multipart/form-data"
            f"{' or application/json' if request.url.path == '/search' else ''}, not '{content_type(request)}'."
        )
    form = await parse_form(request)
    try:
        yield form
    finally:
        await form.close()


def require_json(request: Request) -> None:
    if content_type(request) != "application/json":
        raise UnsupportedMediaType(
            f"{request.method} {request.url.path} takes application/json, not '{content_type(request)}'."
        )


async def read_json(request: Request) -> dict[str, Any]:
    try:
        unique = partial(_unique, MalformedRequest.in_field)
        body = json.loads(await request.body(), parse_constant=_refuse_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MalformedRequest("The body must be a JSON object.")
    return body


async def json_as(model: type[Model], request: Request) -> Model:
    require_json(request)
    return validated(model, await read_json(request))


def _unique(refusal: Callable[[str, str], InvalidInput], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that an object has twice, Python takes the last in silence; a form's is refused, too."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise refusal(twice, "comes twice; send it once")
    return found


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
    for name in ("facets", "boost", "terms"):
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
        unique = partial(_unique, lambda name, said: InvalidInput.in_field(f"{field}.{name}", said))
        return json.loads(str(value), parse_constant=_refuse_constant, object_pairs_hook=unique)
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
