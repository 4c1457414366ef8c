"""Which methods an address has: for 405, whose `Allow` must name them all (RFC 9110), in whatever router they stand."""

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.routing import Match

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def allowed_methods(request: Request) -> list[str]:
    paths = request.app.openapi()["paths"]
    found = [method for method in METHODS if _is_handled(request, method)]
    own = {method.upper() for method in paths.get(request.scope["path"], {})}
    return [method for method in found if not own or method in own or method == "HEAD"]


async def refuse_other_methods(request: Request) -> None:
    """`DELETE /product/list` is no product whose id is no number, but a method that `/product/list` lacks."""
    own = request.app.openapi()["paths"].get(request.scope["path"])
    if own is not None and request.method != "HEAD" and request.method.lower() not in own:
        raise HTTPException(405)


def _is_handled(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(dict(scope))[0] is Match.FULL for route in request.app.router.routes)
