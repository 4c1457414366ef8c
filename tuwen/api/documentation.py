"""`/docs`: the page that shows the API and tries it, out of this installation alone: it loads nothing from elsewhere.

Swagger UI's files stand in `swagger_ui/`, whose README says which version they are.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from fastapi import Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRouter

from tuwen.api.access import GuardedRoute, needs_no_key

FILES = Path(__file__).with_name("swagger_ui")
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tuwen 图文</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(route_class=GuardedRoute)


@router.get("/docs", include_in_schema=False)
@needs_no_key
async def get_documentation() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/{name}", include_in_schema=False)
@needs_no_key
async def get_file(name: Literal["start.js", "swagger-ui-bundle.js", "swagger-ui.css"]) -> Response:
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(_file(name), media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@cache
def _file(name: str) -> bytes:
    return (FILES / name).read_bytes()
