"""`/product/{product_id}/image` and `/images`: a product's pictures, added, removed, put in another order."""

from functools import partial
from typing import Annotated

from fastapi import Path, Request, Response
from fastapi.routing import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from data_models import MAX_IMAGES, ImageOrder, Product
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.conditions import IF_MATCH, condition_of, set_etag
from tuwen.api.forms import json_as, read_form, validated
from tuwen.api.openapi import json_body, picture_body, sent
from tuwen.api.problems import IMAGE_ERRORS, problem_responses
from tuwen.api.products import picture_of
from tuwen.api.state import ApiDependency, ProductId
from tuwen.catalogue.pictures import in_order, with_picture, without_picture
from tuwen.errors import (
    DatabaseUnavailable,
    InvalidInput,
    MalformedRequest,
    NotFound,
    Overloaded,
    UnsupportedMediaType,
    VersionMismatch,
)

router = APIRouter(tags=["products"], route_class=GuardedRoute)

ImageIdInPath = Annotated[str, Path(description="As in the product's `images`.", max_length=64)]
EXAMPLE = {"image_ids": ["1b" * 32, "0a" * 32]}
NOT_PICTURE = ("image", "generated_image_id")


class Place(BaseModel):
    """What comes with a new picture."""

    model_config = ConfigDict(extra="forbid")

    position: int | None = Field(None, ge=1, le=MAX_IMAGES)


@router.post(
    "/product/{product_id}/image",
    status_code=201,
    summary="Add a picture to a product",
    openapi_extra=picture_body() | {"parameters": [IF_MATCH]},
    responses=problem_responses(
        MalformedRequest, NotFound, VersionMismatch, *IMAGE_ERRORS, Overloaded, DatabaseUnavailable
    )
    | sent(201, "ETag"),
)
@needs("write")
async def add_image(product_id: ProductId, request: Request, response: Response, api: ApiDependency) -> Product:
    """Behind the others, or at `position`, where it moves on those from there on; at 1 it is the main one."""
    condition = condition_of(request)
    async with read_form(request) as form:
        place = validated(Place, {name: value for name, value in form.items() if name not in NOT_PICTURE})
        image = await picture_of(form, api)
    if image is None:
        raise InvalidInput.in_field("image", "is missing; send the picture as a file, or a generated_image_id")
    product = await api.threads.uploads.run(
        api.writer.add_picture, product_id, image, partial(with_picture, position=place.position), condition
    )
    set_etag(response, product)
    return product


@router.delete(
    "/product/{product_id}/image/{image_id}",
    summary="Remove a picture from a product",
    openapi_extra={"parameters": [IF_MATCH]},
    responses=problem_responses(NotFound, InvalidInput, VersionMismatch, DatabaseUnavailable) | sent(200, "ETag"),
)
@needs("write")
async def remove_image(
    product_id: ProductId, image_id: ImageIdInPath, request: Request, response: Response, api: ApiDependency
) -> Product:
    """If it was the main one, the next one is. The last one can't be removed."""
    change = partial(without_picture, product_id=product_id, image_id=image_id)
    product = await api.threads.writes.run(api.writer.change_pictures, product_id, change, condition_of(request))
    set_etag(response, product)
    return product


@router.put(
    "/product/{product_id}/images",
    summary="Put a product's pictures in another order",
    openapi_extra=json_body(ImageOrder, EXAMPLE) | {"parameters": [IF_MATCH]},
    responses=problem_responses(
        MalformedRequest, NotFound, InvalidInput, VersionMismatch, UnsupportedMediaType, DatabaseUnavailable
    )
    | sent(200, "ETag"),
)
@needs("write")
async def order_images(product_id: ProductId, request: Request, response: Response, api: ApiDependency) -> Product:
    """The first becomes the main one. Nothing is encoded again."""
    order = await json_as(ImageOrder, request)
    change = partial(in_order, image_ids=order.image_ids)
    product = await api.threads.writes.run(api.writer.change_pictures, product_id, change, condition_of(request))
    set_etag(response, product)
    return product
