"""Who is let in where: every route for every kind of caller, which is also the table of docs/security.md.

WRITE_ROUTE_TABLE=1 has this module write the table into the documents. Tests of a service without a key stand first.
"""

import os
import re
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from data_models import KEY_SCOPES
from main import app
from tests.conftest import create_product, picture
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, running_api, wait_until
from tuwen.api.access import DeclaredRoute, GuardedRoute, declared_routes
from tuwen.errors import ConfigurationError

# All are this machine; the API knows better: one is a proxy's, one a network's that needs no key.
PROXY, OPEN = "127.0.0.2", "127.0.0.3"
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}  # as the proxy says
# What a route is asked for with, so that it does nothing, whoever is let in.
WITH: dict[str, Any] = {
    "product_id": 999999,
    "sku": "NONE",
    "image_id": "none",
    "job_id": 999999,
    "name": "nobody",
    "mode": "hybrid",
}
WITH |= {"path": "none.png", "mode": "hybrid"}
DOCUMENTATION = ("/openapi.json",)
MARKS = "<!-- routes -->", "<!-- end of routes -->"
OTHER = "another shop's"
COLUMNS = ("no key yet, this machine", "no key yet, elsewhere", "without", "search", "write", "admin", "expired",
           "revoked", OTHER)  # fmt: skip
HEADINGS = {
    "docs/security.md": ("route", "scope", *COLUMNS),
    "docs/security.zh-CN.md": ("路由", "权限", "尚无密钥，本机", "尚无密钥，别处", "不带密钥", "search", "write",
                               "admin", "已过期", "已吊销", "别的店的"),
}  # fmt: skip
Statuses = dict[tuple[str, str], dict[str, int]]
"""By method and path, and column."""


def all_routes() -> list[DeclaredRoute]:
    return [*declared_routes(app), *(DeclaredRoute("GET", path, None) for path in DOCUMENTATION)]


def ask_all(
    client: httpx.Client, headers: Mapping[str, str], names: Mapping[str, Mapping[str, Any]] = {}
) -> dict[tuple[str, str], int]:
    """`names`: by the beginning of a path, what is named in such ones instead."""
    answers = {}
    for route in all_routes():
        named = WITH | {
            name: each for begin, of in names.items() if route.path.startswith(begin) for name, each in of.items()
        }
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path).format(**named)
        answers[route.method, route.path] = client.request(route.method, path, headers=headers).status_code
    return answers


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    """Behind a proxy that is trusted, whose headers uvicorn does not look at; any page may read, with a key."""
    settings = {"TRUSTED_PROXIES": PROXY, "FORWARDED_ALLOW_IPS": "192.0.2.1", "CORS_ALLOW_ORIGINS": "http://shop, *"}
    settings |= {"OPEN_TO": OPEN, "HOST_NAMES": "tuwen.intranet", "LOG_LEVEL": "WARNING"}  # the audit's stay
    folder = tmp_path_factory.mktemp("access")
    with (
        running_api(folder, **tiny_models, **settings) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        client.headers["X-Test-Folder"] = str(folder)
        yield client


def connected_from(address: str, api: httpx.Client) -> httpx.Client:
    return httpx.Client(base_url=api.base_url, transport=httpx.HTTPTransport(local_address=address), timeout=30)


@pytest.fixture(scope="module")
def proxy(api: httpx.Client) -> Iterator[httpx.Client]:
    with connected_from(PROXY, api) as client:
        yield client


@pytest.fixture(scope="module")
def in_open_network(api: httpx.Client) -> Iterator[httpx.Client]:
    with connected_from(OPEN, api) as client:
        yield client


@pytest.fixture(scope="module")
def statuses(api: httpx.Client, proxy: httpx.Client, without_key: Statuses, keys: dict[str, str]) -> Statuses:
    columns = {name: ask_all(api, {"X-API-Key": key}) for name, key in keys.items()}
    columns["without"] = ask_all(api, {})
    columns[OTHER] = ask_another_shops(api, keys)
    assert columns["without"] == ask_all(proxy, ELSEWHERE)
    return {route: without_key[route] | {name: of[route] for name, of in columns.items()} for route in without_key}


def ask_another_shops(api: httpx.Client, keys: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """With search and write, for what there is: of a shop that the key is not of."""
    shops = {}
    for shop_id in ("one", "other"):
        body = {"name": f"shop-{shop_id}", "scopes": ["search", "write"], "shop_id": shop_id}
        shops[shop_id] = bearer(api.post("/keys", json=body, headers=bearer(keys["admin"])).json()["key"])
    with httpx.Client(base_url=api.base_url, headers=shops["one"], timeout=30) as owner:
        product = create_product(owner, "沙发", sku="SHOP-1")
        drawing = owner.post("/generate", json={"prompt": "沙发"}).json()
        imported = owner.post("/product/import", files={"file": ("a.csv", b"sku,title\nSHOP-2,x\n")}).json()
        path = product["image_url"].removeprefix("/images/")
        assert owner.get(f"/images/{path}").status_code == 200
        names = {
            "/product": {name: product[name] for name in ("product_id", "sku")},
            "/product/import": {"job_id": imported["job_id"]},
            "/product/{product_id}/image": {"image_id": product["images"][0]["image_id"]},
            "/images": {"path": path},
            "/generate": {"job_id": drawing["job_id"]},
        }
        answers = ask_all(api, shops["other"], names)
        assert owner.get(f"/product/{product['product_id']}").json()["version"] == product["version"]
    return answers


@pytest.fixture(scope="module")
def without_key(api: httpx.Client, proxy: httpx.Client) -> Statuses:
    here, elsewhere = ask_all(api, {}), ask_all(proxy, ELSEWHERE)
    return {route: {COLUMNS[0]: here[route], COLUMNS[1]: elsewhere[route]} for route in here}


@pytest.fixture(scope="module")
def keys(api: httpx.Client, without_key: Statuses) -> dict[str, str]:
    """One of each scope, one that has expired and one that is revoked, by its name; they have all scopes."""
    assert without_key, "what was to be asked of a service without a key"
    scopes = {"admin": ["admin"], "search": ["search"], "write": ["write"]}
    scopes |= {name: [*KEY_SCOPES] for name in ("expired", "revoked")}
    made: dict[str, str] = {}
    for name, of_key in scopes.items():
        body = {"name": name, "scopes": of_key, "expires_at": "2040-01-01T00:00:00Z"}
        response = api.post("/keys", json=body, headers=bearer(made.get("admin", "")))
        assert response.status_code == 201, response.text
        made[name] = response.json()["key"]
    assert api.delete("/keys/revoked", headers=bearer(made["admin"])).status_code == 204
    with sqlite3.connect(Path(api.headers["X-Test-Folder"]) / "data" / "tuwen.db") as database:
        database.execute("UPDATE api_key SET expires_at = ? WHERE name = 'expired'", (str(datetime.now(UTC))[:26],))
    wait_until(
        lambda: api.get("/product/list", headers=bearer(made["expired"])).status_code == 401, what="the key to expire"
    )
    return made


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


# --- Without a key ---------------------------------------------------------------------------------------------------


def test_without_a_key_others_are_told_what_to_do(proxy: httpx.Client, without_key: Statuses) -> None:
    assert without_key
    refused = proxy.get("/product/list", headers=ELSEWHERE)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    problem = refused.json()
    assert (problem["code"], problem["parameters"]) == ("no_key_yet", {"address": "203.0.113.9"})
    assert "cli.py keys create" in problem["detail"]
    assert "OPEN_TO" in problem["detail"]
    in_chinese = proxy.get("/product/list", headers=ELSEWHERE | {"Accept-Language": "zh"}).json()
    assert in_chinese["detail"].startswith("还没有任何 API 密钥")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"},
        {"X-Forwarded-For": "127.0.0.1"},  # the proxy's own machine is not this one, for all that is known
        {"X-Forwarded-For": "10.0.0.1, 127.0.0.1"},
        {"X-Forwarded-For": "::1"},
        {"X-Forwarded-For": "nonsense"},
        {"X-Forwarded-For": ""},
        {"X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Forwarded-Port": "8000"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"True-Client-IP": "127.0.0.1"},
        {"X-Client-IP": "127.0.0.1"},
        {"X-Cluster-Client-IP": "127.0.0.1"},
        {"X-Forwarded-For": f"{OPEN}, {PROXY}, 203.0.113.9"},
    ],
)
def test_a_forged_header_gains_nothing(
    api: httpx.Client, proxy: httpx.Client, without_key: Statuses, headers: dict[str, str]
) -> None:
    assert without_key
    for client in (api, proxy):
        assert client.get("/product/list", headers=headers).status_code == 403


def test_a_proxy_that_does_not_say_for_whom_it_asks_needs_a_key(proxy: httpx.Client, without_key: Statuses) -> None:
    assert without_key
    refused = proxy.get("/product/list")
    assert (refused.status_code, refused.json()["code"]) == (403, "no_key_yet")


def test_a_page_of_another_site_and_another_name_for_this_machine_are_refused(
    api: httpx.Client, without_key: Statuses
) -> None:
    """As a browser on this machine would carry them here: forms of other sites, and names that point here."""
    assert without_key
    form = {"data": {"title": "x"}, "files": {"image": picture()}}
    port = api.base_url.port
    for headers, status, code in (
        ({"Origin": "https://evil.example"}, 403, "other_site"),
        ({"Origin": "null"}, 403, "other_site"),
        ({"Host": f"evil.example:{port}"}, 403, "other_host"),
        ({"Host": f"127.0.0.1.evil.example:{port}"}, 403, "other_host"),
        ({"Host": "printer.lan"}, 403, "other_host"),
        ({"Host": "api:8000"}, 403, "other_host"),
        ({"Origin": "http://["}, 403, "other_site"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "other_site"),
    ):
        refused = api.post("/product", **form, headers=headers)  # type: ignore[arg-type]
        assert (refused.status_code, refused.json()["code"]) == (status, code), headers
    for headers in (
        {"Origin": f"http://127.0.0.1:{port}"},
        {"Origin": "http://shop"},
        {"Host": f"localhost:{port}"},
        {"Host": "[::1]"},
        {"Host": "LOCALHOST."},
        {"Host": f"shop.localhost:{port}"},
        {"Host": socket.gethostname()},
        {"Host": "Tuwen.Intranet:8000", "Origin": "http://tuwen.intranet:8000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://shop", "Sec-Fetch-Site": "cross-site"},
    ):
        assert api.post("/search", json={}, headers=headers).status_code == 422, headers


def test_any_origin_is_none_that_may_read_without_a_key(api: httpx.Client, without_key: Statuses) -> None:
    """CORS_ALLOW_ORIGINS=* has browsers show the answers to every page."""
    assert without_key
    for path in ("/product/list", "/keys"):
        refused = api.get(path, headers={"Origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "other_site")
    assert api.get("/product/list", headers={"Origin": "http://shop"}).status_code == 200


def test_a_page_makes_no_key_without_one(
    api: httpx.Client, in_open_network: httpx.Client, without_key: Statuses
) -> None:
    assert without_key
    for client in (api, in_open_network):
        for origin in (str(api.base_url).rstrip("/"), "http://shop"):
            for refused in (
                client.post("/keys", json={"name": "page", "scopes": ["admin"]}, headers={"Origin": origin}),
                client.delete("/keys/nobody", headers={"Origin": origin}),
            ):
                assert (refused.status_code, refused.json()["code"]) == (403, "page_without_key")
    assert api.get("/keys").json()["items"] == []


def test_an_open_network_calls_the_service_by_its_own_names(
    in_open_network: httpx.Client, proxy: httpx.Client, without_key: Statuses
) -> None:
    assert without_key
    for host, status in (
        ("evil.example", 403),
        ("printer.lan", 403),
        ("api:8000", 200),  # a container's name
        ("10.1.2.3:8000", 200),
        ("tuwen.intranet", 200),
    ):
        assert in_open_network.get("/product/list", headers={"Host": host}).status_code == status, host
        headers = {"X-Forwarded-For": OPEN, "X-Forwarded-Host": host}
        assert proxy.get("/product/list", headers=headers).status_code == status, host
    refused = in_open_network.get("/product/list", headers={"Host": "evil.example", "Accept-Language": "zh"})
    assert "HOST_NAMES" in refused.json()["detail"]
    assert refused.json()["detail"].startswith("不带 API 密钥时")


@pytest.mark.parametrize("host", ["[", "[evil]:8000", "a@127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", ""])
def test_a_host_that_is_none_is_refused(
    api: httpx.Client, in_open_network: httpx.Client, without_key: Statuses, host: str
) -> None:
    assert without_key
    for client in (api, in_open_network):
        refused = client.get("/product/list", headers={"Host": host})
        assert (refused.status_code, refused.json()["code"]) == (403, "other_host")
        assert client.get("/health", headers={"Host": host}).status_code == 200


# --- With keys -------------------------------------------------------------------------------------------------------


def test_each_route_lets_in_who_has_its_scope(statuses: Statuses) -> None:
    assert {(route.method, route.path) for route in all_routes()} == set(statuses)
    for route in all_routes():
        status = statuses[route.method, route.path]
        let_in = {name for name, answered in status.items() if answered not in (401, 403)}
        if route.scope is None:
            assert let_in == set(COLUMNS), route
            continue
        of_shop = {OTHER} if route.scope != "admin" else set()
        assert let_in == {COLUMNS[0], route.scope} | of_shop, route
        assert status[OTHER] in (200, 202, 403, 404, 415, 422), route
        assert "{" not in route.path or status[OTHER] != 200, route
        assert {name: status[name] for name in ("without", "expired", "revoked")} == dict.fromkeys(
            ("without", "expired", "revoked"), 401
        ), route
        assert status[COLUMNS[1]] == 403, route


def test_the_document_says_which_routes_want_a_key() -> None:
    paths = app.openapi()["paths"]
    for method, path, scope in declared_routes(app):
        operation = paths.get(path.replace(":path}", "}"), {}).get(method.lower())
        if operation is not None:  # HEAD is not shown
            assert {"401", "403", "429"} <= operation["responses"].keys() or scope is None, path
            assert ("security" in operation) == (scope is not None), path
    assert "security" in paths["/product/by-sku/{sku}"]["put"]


def test_nothing_else_is_served() -> None:
    served = {getattr(route, "path", None) for route in app.routes} - {None}
    assert served == set(DOCUMENTATION)


@pytest.mark.parametrize("document", HEADINGS)
def test_the_documents_table_is_this(statuses: Statuses, document: str) -> None:
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0] + "\n")
    table, after = rest.split(MARKS[1])
    wanted = route_table(statuses, HEADINGS[document])
    if os.environ.get("WRITE_ROUTE_TABLE"):
        path.write_text(f"{before}{MARKS[0]}\n{wanted}{MARKS[1]}{after}", encoding="utf-8")
        table = wanted
    assert table == wanted, "WRITE_ROUTE_TABLE=1 with this test writes it"


def route_table(statuses: Statuses, headings: tuple[str, ...]) -> str:
    rows = [headings, ("---",) * len(headings)]
    for route in sorted(all_routes(), key=lambda each: (each.path, each.method)):
        status = statuses[route.method, route.path]
        cells = (str(status[column]) if status[column] in (401, 403) else f"✓ {status[column]}" for column in COLUMNS)
        rows.append((f"`{route.method} {route.path}`", route.scope or "", *cells))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_a_route_without_a_scope_or_without_a_guard_ends_the_start() -> None:
    async def endpoint() -> None:
        """Declares nothing."""

    with pytest.raises(ConfigurationError, match="/new declares no scope"):
        APIRouter(route_class=GuardedRoute).get("/new")(endpoint)
    unguarded = APIRouter()
    unguarded.get("/new")(endpoint)
    other_app = FastAPI(docs_url=None, redoc_url=None)
    other_app.include_router(unguarded)
    with pytest.raises(ConfigurationError, match="/new is not guarded"):
        list(declared_routes(other_app))


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize(
    "route",
    [
        Route("/new", lambda _: Response()),
        Mount("/new", StaticFiles(directory=ROOT / "docs")),
        WebSocketRoute("/new", lambda _: None),
        Host("new", Router()),
    ],
    ids=lambda route: type(route).__name__,
)
def test_what_is_no_route_of_ours_ends_the_start(route: BaseRoute, included: bool) -> None:
    app, router = FastAPI(docs_url=None, redoc_url=None), APIRouter()
    router.routes.append(route)
    if included:
        outer = APIRouter()
        outer.include_router(router)
        app.include_router(outer, prefix="/of")
    else:
        app.router.routes.append(route)
    with pytest.raises(ConfigurationError, match=r"new.* is not guarded"):
        list(declared_routes(app))


def test_a_folder_of_pages_ends_the_start() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.frontend("/new", directory=ROOT / "docs")
    with pytest.raises(ConfigurationError, match="is not guarded"):
        list(declared_routes(app))


def test_problems_say_what_is_missing(api: httpx.Client, keys: dict[str, str]) -> None:
    for headers, path, status, code, challenge in (
        ({}, "/product/list", 401, "needs_key", "Bearer"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "/product/list", 401, "needs_key", "Bearer"),
        ({"X-API-Key": "tuwen_unknown"}, "/product/list", 401, "unknown_key", 'Bearer error="invalid_token"'),
        ({"X-API-Key": b"\xff\xfe".decode("latin-1")}, "/product/list", 401, "unknown_key",
         'Bearer error="invalid_token"'),
        (bearer(keys["expired"]), "/product/list", 401, "expired_key", 'Bearer error="invalid_token"'),
        (bearer(keys["revoked"]), "/product/list", 401, "revoked_key", 'Bearer error="invalid_token"'),
        (bearer(keys["search"]), "/metrics", 403, "missing_scope", None),
    ):  # fmt: skip
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        refused = api.get(path, headers=encoded)
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (status, code), headers
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers.get("WWW-Authenticate") == challenge
    assert problem["parameters"] == {"scope": "admin", "name": "search", "scopes": "search"}
    in_chinese = api.get("/metrics", headers=bearer(keys["search"]) | {"Accept-Language": "zh"}).json()
    assert in_chinese["detail"] == "这需要权限 admin；API 密钥 search 只有 search。"


def test_a_key_works_in_either_header_from_anywhere(api: httpx.Client, keys: dict[str, str]) -> None:
    for headers in (
        {"X-API-Key": keys["search"]},
        bearer(keys["search"]),
        {"Authorization": f"bearer  {keys['search']}"},
        {"X-API-Key": keys["search"], "Authorization": "Basic dXNlcjpwYXNz"},
        bearer(keys["search"]) | ELSEWHERE,
        bearer(keys["search"]) | {"Origin": "https://elsewhere.example", "Host": "api.example"},
    ):
        assert api.get("/product/list", headers=headers).status_code == 200, headers


def test_who_may_not_is_refused_before_the_body_is_read(api: httpx.Client, keys: dict[str, str]) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2000):
            sent += 1
            yield b"x" * 100_000

    headers = bearer(keys["search"]) | {"Content-Type": "multipart/form-data; boundary=x"}
    refused: int | None = None
    try:
        refused = api.post("/product/import", content=body(), headers=headers).status_code
    except httpx.TransportError:  # it may close before all is sent
        assert sent < 2000
    assert refused in (403, None)


def test_health_shows_strangers_only_what_is_up(api: httpx.Client, keys: dict[str, str]) -> None:
    for path in ("/health", "/health/ready"):
        full = api.get(path, headers=bearer(keys["admin"])).json()
        assert full["version"]
        assert full["components"]["models"]["detail"]
        for headers in ({}, bearer(keys["search"]), bearer(keys["revoked"]), ELSEWHERE):
            seen = api.get(path, headers=headers).json()
            assert (seen["version"], seen["backlog"], seen["index"]) == (None, None, None)
            assert {part["detail"] for part in seen["components"].values()} == {None}
            assert seen["components"]["models"]["status"] == full["components"]["models"]["status"]
            assert seen["demo_models"] == full["demo_models"]


def test_admins_see_all_keys_and_never_the_key_itself(api: httpx.Client, keys: dict[str, str]) -> None:
    listed = api.get("/keys", headers=bearer(keys["admin"]))
    by_name = {each["name"]: each for each in listed.json()["items"]}
    assert {name for name in by_name if not name.startswith("shop-")} == set(keys)
    assert by_name["revoked"]["revoked_at"]
    assert not any(key in listed.text for key in keys.values())
    again = api.post("/keys", json={"name": "search", "scopes": ["search"]}, headers=bearer(keys["admin"]))
    assert (again.status_code, again.json()["errors"][0]["code"]) == (409, "name_taken")


def test_an_exact_search_takes_both_scopes(api: httpx.Client, keys: dict[str, str]) -> None:
    search: dict[str, Any] = {"mode": "text_to_text", "text": "sofa"}
    refused = api.post("/search", json=search | {"exact": True}, headers=bearer(keys["search"]))
    assert (refused.status_code, refused.json()["parameters"]["scope"]) == (403, "admin")
    assert api.post("/search", json=search | {"exact": False}, headers=bearer(keys["search"])).status_code == 200
    body = {"name": "measuring", "scopes": ["search", "admin"]}
    key = api.post("/keys", json=body, headers=bearer(keys["admin"])).json()["key"]
    assert api.post("/search", json=search | {"exact": True}, headers=bearer(key)).status_code == 200
    assert api.delete("/keys/measuring", headers=bearer(keys["admin"])).status_code == 204


def test_no_shared_cache_gives_one_callers_answer_to_another(api: httpx.Client, keys: dict[str, str]) -> None:
    with httpx.Client(base_url=api.base_url, headers=bearer(keys["write"]), trust_env=False) as writer:
        product = create_product(writer, "灯")
    reader = bearer(keys["search"])
    for url in (product["image_url"], product["thumbnail_url"]):
        shown = api.get(url, headers=reader)
        assert shown.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        known = api.get(url, headers=reader | {"If-None-Match": shown.headers["ETag"]})
        assert (known.status_code, known.headers["Cache-Control"]) == (304, shown.headers["Cache-Control"])
        for answer in (shown, known, api.get(url)):
            assert varies(answer) >= {"authorization", "x-api-key"}
    admin = bearer(keys["admin"])
    made = api.post("/keys", json={"name": "brief", "scopes": ["search"]}, headers=admin)
    for answer in (made, api.get("/keys", headers=admin), api.delete("/keys/brief", headers=admin)):
        assert (answer.is_success, answer.headers["Cache-Control"]) == (True, "no-store")
    assert varies(api.get("/product/list")) >= {"accept-language", "authorization", "x-api-key"}  # a refusal


def varies(answer: httpx.Response) -> set[str]:
    return {name.strip().lower() for name in answer.headers["Vary"].split(",")}


def test_writes_are_logged_by_the_name_of_the_key(api: httpx.Client, keys: dict[str, str]) -> None:
    client = httpx.Client(base_url=api.base_url, headers=bearer(keys["write"]), trust_env=False)
    product_id = create_product(client, "桌子")["product_id"]
    client.delete(f"/product/{product_id}", headers={"If-Match": '"none"'})
    client.put("/product/by-sku/a%20b%22", files={"image": b""})
    client.close()
    found = api.post("/search", json={"mode": "text_to_text", "text": "桌子"}, headers=bearer(keys["search"]))
    assert found.status_code == 200
    log = (Path(api.headers["X-Test-Folder"]) / "api.log").read_text(encoding="utf-8")
    lines = [line.partition("]: ")[2] for line in log.splitlines() if " tuwen.audit [" in line]
    by_write = [line for line in lines if "by the key write" in line]
    assert "POST /product 201 by the key write from 127.0.0.1" in by_write
    assert f"DELETE /product/{product_id} 412 by the key write from 127.0.0.1" in by_write
    assert "PUT /product/by-sku/a%20b%22 422 by the key write from 127.0.0.1" in by_write
    assert not any(line.startswith("POST /search ") for line in lines)  # which changes nothing
    made, revoked = (
        "The API key {} was made, with the scopes {}, by {} from 127.0.0.1",
        "The API key {} was revoked by {}",
    )
    assert made.format("admin", "admin", "somebody who needs no key") in lines
    assert made.format("revoked", "search, write, admin", "the key admin") in lines
    assert revoked.format("revoked", "the key admin") + " from 127.0.0.1" in lines
    assert not any(key in log for key in keys.values())


def test_the_command_line_makes_lists_and_revokes_keys(api: httpx.Client, keys: dict[str, str]) -> None:
    data = {"DATA_DIR": str(Path(api.headers["X-Test-Folder"]) / "data")}
    made = run_cli("keys", "create", "--name", "till", "--scope", "search", "--expires", "90d", **data)
    assert (made.returncode, made.stdout.count("\n")) == (0, 1), made.stderr
    key = made.stdout.strip()
    assert api.get("/product/list", headers=bearer(key)).status_code == 200  # at once
    long, limits = "nightly-feed-of-the-shop-in-the-north", "search=100/second, generate=50/day"
    options = ("--scope", "search", "--scope", "write", "--limit", limits)
    assert run_cli("keys", "create", "--name", long, *options, **data).returncode == 0
    listed = run_cli("keys", "list", **data, COLUMNS="80").stdout
    rows = [[cell.strip() for cell in line.split("│")] for line in listed.splitlines() if line.startswith("│")]
    names, folded_limits = "".join(row[1] for row in rows), "".join(row[8] for row in rows)
    assert all(name in names for name in (*keys, "till", long))
    assert limits.replace(" ", "") in folded_limits.replace(" ", "")
    assert {bool(re.fullmatch(r"(\d{4}-\d\d-\d\d|\d\d:\d\d|)", cell)) for row in rows for cell in row[4:8]} == {True}
    assert "…" not in listed
    assert run_cli("keys", "revoke", "till", **data).returncode == 0
    wait_until(lambda: api.get("/product/list", headers=bearer(key)).status_code == 401, timeout_s=5, what="a refusal")
    unknown = run_cli("keys", "revoke", "nobody", **data)
    assert (unknown.returncode, unknown.stderr.splitlines()[1:]) == (1, ["There is no API key 'nobody'."])
    assert unknown.stderr.splitlines()[0] == f"Database: {data['DATA_DIR']}/tuwen.db (DATA_DIR)"
