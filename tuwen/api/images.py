"""`/images`: the picture files, as browsers and caches ask for them."""

from pathlib import PurePosixPath

from fastapi import Request, Response
from fastapi.routing import APIRouter

from tuwen.api.access import GuardedRoute, needs
from tuwen.api.openapi import sent
from tuwen.api.problems import problem_responses
from tuwen.api.state import Api, ApiDependency
from tuwen.errors import DatabaseUnavailable, ImageStoreUnavailable, NotFound, Overloaded
from tuwen.pictures.store import MEDIA_TYPES
from tuwen.pictures.thumbnails import FOR_BROWSERS

router = APIRouter(tags=["pictures"], route_class=GuardedRoute)

# A picture's path holds the hash of its bytes, so what is behind it never changes.
IMMUTABLE = "max-age=31536000, immutable"
# Any shop's page may show it; whatever a file may be besides a picture, it runs nowhere.
FOR_PAGES = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cross-Origin-Resource-Policy": "cross-origin"}


@router.head("/images/{path:path}", include_in_schema=False)  # caches ask with it
@router.get(
    "/images/{path:path}",
    summary="A product's picture or thumbnail",
    response_class=Response,
    responses={
        200: {"content": {"image/*": {}}, **sent(200, "ETag")[200]},
        304: {"description": "It is the one that If-None-Match names.", **sent(304, "ETag")[304]},
        **problem_responses(NotFound, Overloaded, ImageStoreUnavailable, DatabaseUnavailable),
    },
)
@needs("search", opened_by="public_pictures")
async def get_image(path: str, request: Request, api: ApiDependency) -> Response:
    """As named by `image_url` and `thumbnail_url`."""
    name = PurePosixPath(path)
    etag = f'"{name.stem}"'
    # What a key opened is for its caller's own cache: one that many share would go on giving it to anybody.
    whose = "public" if request.state.caller.key is None else "private"
    headers = {"Cache-Control": f"{whose}, {IMMUTABLE}", "ETag": etag, **FOR_PAGES}
    media_type = MEDIA_TYPES.get(name.suffix[1:])
    if media_type is None:
        raise NotFound(f"There is no picture {path}.")
    data = await _read(path, api)  # first: what is gone is not unchanged
    known = request.headers.get("if-none-match", "")
    if known == "*" or etag in [each.strip().removeprefix("W/") for each in known.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


async def _read(path: str, api: Api) -> bytes:
    """A thumbnail that was lost is made again; what is shown for a format that not every browser knows, when needed."""
    images, threads, decoder = api.services.images, api.threads.pictures, api.services.decoder
    try:
        return await threads.run(images.read, path)
    except NotFound:
        make = decoder.shown if path.startswith(f"{FOR_BROWSERS}/") else decoder.thumbnail
        made = await make(await threads.run(images.original_of, path))
        await threads.run(images.save_derived, path, made)
        return made
