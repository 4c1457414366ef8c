"""The HTTP contract: what a product looks like, and what every bad input gets, with nothing changed behind it."""

import asyncio
import base64
import io
import json
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from data_models import PICTURE_FORMATS
from tests.conftest import broken_picture, create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import wait_until
from tuwen.api import limits
from tuwen.errors import MalformedRequest

Snapshot = Callable[[], object]


@pytest.fixture
def snapshot(api: httpx.Client, api_folder: Path) -> Snapshot:
    """Everything that a write could touch: products, outbox, stored files."""
    wait_until_indexed(api)

    def rows_of(query: str) -> list[Any]:
        with sqlite3.connect(api_folder / "data" / "tuwen.db") as connection:
            rows = connection.execute(query).fetchall()
        connection.close()
        return rows

    def take() -> object:
        tables = [rows_of(f"SELECT * FROM {table}") for table in ("product", "outbox")]
        return tables, sorted(api_folder.glob("data/images/**/*"))

    # The relay marks its message a moment after the product is indexed.
    wait_until(lambda: not rows_of("SELECT 1 FROM outbox WHERE published_at IS NULL"), what="the outbox to be empty")
    wait_until(lambda: not rows_of("SELECT 1 FROM product WHERE sketch_version = 0"), what="all to be compared")
    return take


@pytest.fixture(scope="module")
def sofa(api: httpx.Client) -> dict[str, Any]:
    return create_product(
        api, "红色布艺沙发", sku="SOFA-1", category="沙发", price="1999.00", attributes='{"颜色": "红"}'
    )


def claimed_png(width: int, height: int) -> bytes:
    """A tiny file whose header claims a huge picture: a decompression bomb's outside."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def noise(side: int) -> bytes:
    image = Image.effect_noise((side, side), 100).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


BAD_PICTURES = {
    "no picture at all": (b"just some text", 422, "not a picture"),
    "empty": (b"", 422, "not a picture"),
    "truncated": (picture(size=(300, 300), image_format="JPEG")[:-600], 422, "cut off"),
    "decompression bomb": (claimed_png(40_000, 40_000), 413, "pixels"),
    "a bit over the pixels": (picture(size=(2001, 2001)), 413, "4,004,001 pixels"),
    "too many bytes": (noise(700), 413, "bytes"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), 415, "JPEG XL"),
    "Photoshop": (b"8BPS" + bytes(99), 415, "Photoshop"),
    "SVG": (b"<?xml version='1.0'?><svg/>", 415, "SVG"),
    "a page": (b"<!DOCTYPE html><html>", 422, "HTML, not a picture"),
    "a video": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", 422, "a video"),
    "PDF behind .png": (picture(image_format="PDF"), 422, "not a picture"),
    "icon behind .png": (picture(image_format="ICO"), 415, "ICO"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_is_refused_and_changes_nothing(
    api: httpx.Client, sofa: dict[str, Any], snapshot: Snapshot, case: str
) -> None:
    data, status, reason = BAD_PICTURES[case]
    before = snapshot()
    files = {"image": ("picture.png", data, "image/png")}
    for response in (
        api.post("/product", data={"title": "沙发"}, files=files),
        api.patch(f"/product/{sofa['product_id']}", data={"title": "沙发"}, files=files),
        api.post("/search", data={"mode": "image_to_image"}, files=files),
    ):
        assert_problem(response, status, "image", reason)
    assert snapshot() == before


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


BAD_FIELDS = {
    "no title": ({}, 422, "title", "required"),
    "empty title": ({"title": ""}, 422, "title", "at least 1"),
    "blank title": ({"title": "  \n"}, 422, "title", "at least 1"),
    "501 characters": ({"title": "图" * 501}, 422, "title", "500"),
    "control character": ({"title": "沙\0发"}, 422, "title", "control"),
    "attributes: broken JSON": ({"title": "a", "attributes": "{'a': 1"}, 422, "attributes", "not JSON"),
    "attributes: a list": ({"title": "a", "attributes": "[1]"}, 422, "attributes", "JSON object"),
    "attributes: NaN": ({"title": "a", "attributes": '{"a": NaN}'}, 422, "attributes", "NaN"),
    "attributes: lone surrogate": ({"title": "a", "attributes": '{"a": "\\ud800"}'}, 422, "attributes", "Unicode"),
    "attributes: deep": ({"title": "a", "attributes": '{"a":' * 5000 + "1" + "}" * 5000}, 422, "attributes", "deep"),
    "attributes: infinite": ({"title": "a", "attributes": '{"a": [1e999]}'}, 422, "attributes", "not a JSON number"),
    "attributes: over 64 bits": (
        {"title": "a", "attributes": '{"a": {"b": 9223372036854775808}}'},
        422,
        "attributes",
        "64",
    ),
    "attributes: huge": ({"title": "a", "attributes": json.dumps({"a": "x" * 40_000})}, 422, "attributes", "32,768"),
    "negative price": ({"title": "a", "price": "-1"}, 422, "price", "greater than or equal to 0"),
    "price in thirds": ({"title": "a", "price": "1.333"}, 422, "price", "2 decimal places"),
    "price in words": ({"title": "a", "price": "ten"}, 422, "price", "decimal"),
    "long sku": ({"title": "a", "sku": "x" * 65}, 422, "sku", "64"),
    "long category": ({"title": "a", "category": "x" * 101}, 422, "category", "100"),
    "unknown field": ({"title": "a", "colour": "red"}, 422, "colour", "not permitted"),
    "nested attributes": (
        {"title": "a", "attributes": json.dumps({"a": {"b": [[]] * 2, "c": nested(20)}})},
        422,
        "attributes",
        "20 lists",
    ),
    "duplicate sku": ({"title": "a", "sku": "SOFA-1"}, 409, "sku", "SOFA-1"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_bad_field_is_refused_and_changes_nothing(
    api: httpx.Client, sofa: dict[str, Any], snapshot: Snapshot, case: str
) -> None:
    fields, status, field, reason = BAD_FIELDS[case]
    before = snapshot()
    response = api.post("/product", data=fields, files={"image": ("new.png", picture("purple"))})
    assert_problem(response, status, field, reason)
    assert snapshot() == before


def test_a_create_without_a_picture_or_a_form_is_refused(api: httpx.Client, snapshot: Snapshot) -> None:
    before = snapshot()
    assert_problem(api.post("/product", data={"title": "沙发"}), 422, "image", "missing")
    assert_problem(api.post("/product", data={"title": "沙发", "image": "text"}), 422, "image", "must be a file")
    assert_problem(api.post("/product", json={"title": "沙发"}), 415, None, "multipart/form-data")
    broken = api.post("/product", content=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data"})
    assert_problem(broken, 400, None, "")
    assert broken.json()["type"] == "urn:tuwen:problem:malformed-request"
    assert snapshot() == before


@pytest.mark.parametrize(
    ("body", "status", "field", "reason"),
    [
        ({"mode": "picture_to_word", "text": "a"}, 422, "mode", "image_to_image"),
        ({"text": "a"}, 422, "mode", "required"),
        ({"mode": "text_to_text"}, 422, "text", "needs exactly one of: text, product_id"),
        ({"mode": "text_to_image", "text": " "}, 422, "text", "empty"),
        ({"mode": "text_to_image", "text": "图" * 501}, 422, "text", "500"),
        ({"mode": "text_to_image", "text": "\ud800"}, 422, "text", "string"),
        ({"mode": "image_to_text"}, 422, "image", "needs exactly one of: image"),
        ({"mode": "image_to_text", "text": "a"}, 422, "text", "needs exactly one of: image"),
        ({"mode": "text_to_text", "text": "a", "product_id": 1}, 422, "text", "text and product_id"),
        ({"mode": "image_to_image", "image_base64": "%%%"}, 422, "image_base64", "not base64"),
        ({"mode": "image_to_image", "image_base64": "AAAA"}, 422, "image", "not a picture"),
        ({"mode": "image_to_image", "image_url": "http://localhost/a.png"}, 422, "image_url", "IMAGE_URL_HOSTS"),
        ({"mode": "image_to_image", "product_id": 987654}, 404, None, "987654"),
        ({"mode": "text_to_text", "text": "a", "top_k": 0}, 422, "top_k", "greater than or equal to 1"),
        ({"mode": "text_to_text", "text": "a", "top_k": 101}, 422, "top_k", "less than or equal to 100"),
        ({"mode": "text_to_text", "text": "a", "offset": -1}, 422, "offset", "greater than or equal to 0"),
        ({"mode": "text_to_text", "text": "a", "offset": 1001}, 422, "offset", "1000"),
        ({"mode": "text_to_text", "text": "a", "filters": {"colour": 1}}, 422, "filters.colour", "not permitted"),
        ({"mode": "text_to_text", "text": "a", "filters": {"price_min": 2, "price_max": 1}}, 422, "filters", "above"),
        ({"mode": "text_to_text", "text": "a", "product_id": 2**70}, 422, "product_id", "less than"),
        (
            {"mode": "text_to_text", "text": "a", "filters": {"attributes": {"a": "\ud800"}}},
            422,
            "filters.attributes",
            "Unicode",
        ),
        (
            {"mode": "text_to_text", "text": "a", "filters": {"attributes": {"a": 2**64}}},
            422,
            "filters.attributes",
            "64",
        ),
        ({"mode": "text_to_text", "text": "a", "filters": {"attributes": {"a": float("inf")}}}, 400, None, "Infinity"),
        (
            {
                "mode": "text_to_text",
                "text": "a",
                "filters": {"attributes": {k: {"any_of": [1] * 100} for k in "abcd"}},
            },
            422,
            "filters.attributes",
            "300",
        ),
        ({"mode": "text_to_text", "text": "a", "limit": 3}, 422, "limit", "not permitted"),
    ],
)
def test_a_bad_search_names_what_to_change(
    api: httpx.Client, body: dict[str, Any], status: int, field: str | None, reason: str
) -> None:
    content = json.dumps(body).encode()
    response = api.post("/search", content=content, headers={"Content-Type": "application/json"})
    assert_problem(response, status, field, reason)


def test_a_body_that_is_not_json_or_not_an_object_is_malformed(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert_problem(api.post("/search", content=b"{", headers=headers), 400, None, "not JSON")
    assert_problem(api.post("/search", content=b"[1]", headers=headers), 400, None, "JSON object")
    assert_problem(api.post("/search", content=b"\xff", headers=headers), 400, None, "not JSON")
    assert_problem(api.post("/search", content=b"a", headers={"Content-Type": "text/plain"}), 415, None, "text/plain")


def test_a_form_that_is_cut_off_is_not_one_with_fewer_fields(api: httpx.Client) -> None:
    kept = create_product(api, "桌子", sku="CUT-OFF", price="12.50", category="桌")
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % each
        for each in ((b"title", b"a"), (b"price", b"9"), (b"category", b"b"))
    )
    form = b"".join(parts) + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for cut in (4, 8, 10, 30, 100):
        answer = api.put("/product/by-sku/CUT-OFF", content=form[:-cut], headers=headers)
        assert_problem(answer, 400, None, "ends before the form")
    assert api.get(f"/product/{kept['product_id']}").json()["version"] == kept["version"]
    assert api.put("/product/by-sku/CUT-OFF", content=form, headers=headers).json()["title"] == "a"
    api.delete(f"/product/{kept['product_id']}").raise_for_status()


def test_a_body_over_the_limit_is_refused_declared_or_not(api: httpx.Client) -> None:
    huge = b"x" * 4_000_000
    headers = {"Content-Type": "application/json"}
    for path in ("/search", "/generate", "/reindex", "/reindex/rollback"):  # read by us, and by FastAPI
        assert_problem(api.post(path, content=huge, headers=headers), 413, "body", "over")
        chunks = (huge[start : start + 65536] for start in range(0, len(huge), 65536))
        assert_problem(api.post(path, content=chunks, headers=headers), 413, "body", "over")


def test_bodies_of_all_together_have_a_limit_as_well(api: httpx.Client) -> None:
    """Of many senders who don't come to their end, as of many large pictures at once; and half of it is anybody's."""
    size = 500_000
    head = (
        f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    address = (api.base_url.host, api.base_url.port or 80)
    by_text = {"mode": "text_to_text", "text": "沙发"}
    by_picture = {"mode": "image_to_image", "image_base64": base64.b64encode(noise(500)).decode()}
    assert api.post("/search", json=by_picture).is_success
    with ExitStack() as senders:

        def fill(source: str) -> httpx.Response:
            """Until searches from there are refused."""
            here = httpx.HTTPTransport(local_address=source)
            client = senders.enter_context(httpx.Client(base_url=api.base_url, transport=here, timeout=30))
            for _ in range(60):
                sender = socket.create_connection(address, timeout=30, source_address=(source, 0))
                senders.enter_context(sender)
                with suppress(ConnectionError):  # one that is refused already
                    sender.sendall(head.encode() + b" " * (size - 1))
                refused = client.post("/search", json=by_picture)
                if not refused.is_success:
                    break
            return refused

        assert_problem(fill("127.0.0.2"), 429, None, "address 127.0.0.2 has")
        assert api.post("/search", json=by_picture).is_success
        assert_problem(fill("127.0.0.3"), 429, None, "address 127.0.0.3 has")
        refused = fill("127.0.0.1")
        assert_problem(refused, 503, None, "Too many large requests")
        assert refused.headers["Retry-After"] == "1"
        assert api.post("/search", json=by_text).is_success
    wait_until(lambda: api.post("/search", json=by_picture).is_success, what="room once they have gone")


@pytest.mark.parametrize(("silence_s", "longest_s"), [(0.2, 60), (60, 0.5)], ids=["silent", "drop by drop"])
def test_a_body_whose_sender_vanishes_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, silence_s: float, longest_s: float
) -> None:
    monkeypatch.setattr(limits, "SILENCE_S", silence_s)
    monkeypatch.setattr(limits, "LONGEST_BODY_S", longest_s)
    seconds = iter([0, 0.05, 0.05, *[1000 if silence_s < longest_s else 0.1] * 100])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(next(seconds))
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    async def read_all(scope: Scope, receive: Receive, _: Send) -> None:
        await Request(scope, receive).body()

    async def send(_: Any) -> None:
        pytest.fail("nothing is answered here")

    limited = limits.BodyLimit(read_all, max_bytes=10**6)
    with pytest.raises(MalformedRequest, match="rest of the body did not come"):
        asyncio.run(asyncio.wait_for(limited({"type": "http", "headers": []}, receive, send), 30))
    assert limited._at_once_bytes == 0


def test_unknown_products_pictures_and_routes_are_404(api: httpx.Client) -> None:
    assert_problem(api.get("/product/987654"), 404, None, "987654")
    assert_problem(api.patch("/product/987654", data={"title": "a"}), 404, None, "987654")
    assert_problem(api.delete("/product/987654"), 404, None, "987654")
    assert_problem(api.get("/product/abc"), 422, "product_id", "integer")
    assert_problem(api.get("/images/00/nothing.png"), 404, None, "no picture")
    assert_problem(api.get("/images/a%00.png"), 404, None, "no picture")
    assert_problem(api.get(f"/images/{'a' * 5000}.png"), 404, None, "no picture")
    assert_problem(api.get("/images/%2e%2e/tuwen.db"), 404, None, "no picture")
    assert_problem(api.get("/images/..%2f..%2fpicture.png"), 404, None, "no picture")
    sha256 = "a" * 64  # an ETag that anybody can guess makes no picture
    for path in (f"aa/{sha256}.png", f"thumbnails/aa/{sha256}.webp", f"{'b' * 12}/aa/{sha256}.png", f"{sha256}.png"):
        never = api.get(f"/images/{path}", headers={"If-None-Match": f'"{sha256}"'})
        assert_problem(never, 404, None, "no picture")
    assert_problem(api.get("/nowhere"), 404, None, "Not Found")


def test_a_method_that_an_address_lacks_is_told_which_it_has(api: httpx.Client) -> None:
    for method, path, has in (
        ("PUT", "/search", "POST"),
        ("DELETE", "/product", "PATCH, POST"),  # in two routers
        ("DELETE", "/product/list", "GET"),  # not a product of that number
        ("PATCH", "/product/import", "POST"),
        ("GET", "/reindex/rollback", "POST"),
        ("POST", "/product/7", "DELETE, GET, PATCH"),
        ("DELETE", "/health", "GET, HEAD"),
    ):
        answer = api.request(method, path)
        assert_problem(answer, 405, None, "Method Not Allowed")
        assert answer.headers["Allow"] == has, path
    assert_problem(api.get("/product/lists"), 422, "product_id", "integer")


def test_a_created_product_answers_everything_the_contract_names(api: httpx.Client) -> None:
    files = {"image": ("p.jpg", picture("teal", (90, 60), "JPEG"))}
    data = {"title": "  青色扶手椅 ", "sku": "CHAIR-9", "price": "5", "attributes": '{"材质": ["木", "布"]}'}
    response = api.post("/product", data=data, files=files)
    product = response.json()
    assert (response.status_code, response.headers["Location"]) == (201, f"/product/{product['product_id']}")
    assert product["title"] == "青色扶手椅"
    assert (product["price"], product["attributes"]) == (5.0, {"材质": ["木", "布"]})
    assert (product["image_width"], product["image_height"], product["version"]) == (90, 60, 1)
    assert product["created_at"].endswith("Z")
    wait_until_indexed(api)
    read = api.get(response.headers["Location"]).json()
    assert read["index_status"] == "indexed"
    assert isinstance(read["milvus_id"], str)
    assert read["indexed_at"] >= read["created_at"]


def test_patch_changes_what_is_sent_and_clears_what_is_sent_empty(api: httpx.Client) -> None:
    product = create_product(api, "旧标题", sku="PATCH-1", category="灯具", price="10", attributes='{"a": 1}')
    path = f"/product/{product['product_id']}"
    changed = api.patch(path, data={"category": "", "price": ""}).json()
    assert (changed["category"], changed["price"], changed["title"]) == (None, None, "旧标题")
    assert (changed["sku"], changed["attributes"], changed["version"]) == ("PATCH-1", {"a": 1}, 2)
    with_picture = api.patch(path, files={"image": ("new.png", picture("navy", (10, 20)))}).json()
    assert (with_picture["image_width"], with_picture["version"]) == (10, 3)
    assert api.patch(path, data={"sku": "PATCH-1"}).status_code == 200
    assert_problem(api.patch(path, data={"title": ""}), 422, "title", "at least 1")
    untouched = api.patch(path, files={"nothing": b""})
    assert_problem(untouched, 422, "nothing", "not permitted")


def test_a_product_that_failed_comes_back_by_request_or_by_command(api: httpx.Client, api_folder: Path) -> None:
    product = create_product(api, "坏盘上的柜子", picture("teal"))
    wait_until_indexed(api)
    path = f"/product/{product['product_id']}"
    with broken_picture(api_folder, product):
        queued = api.post(f"{path}/reindex")
        assert (queued.status_code, queued.json()["index_status"]) == (httpx.codes.ACCEPTED, "pending")
        wait_until_indexed(api)
        assert api.get(path).json()["index_status"] == "failed"
        api.post(f"{path}/reindex")
        wait_until_indexed(api)
        assert api.get(path).json()["index_status"] == "failed"
    settings = {"DATA_DIR": str(api_folder / "data")}
    for option, count in ((["--reason-contains", "out of memory"], 0), ([], 1)):  # beside the running service
        said = run_cli("retry-failed", *option, **settings)
        assert (said.returncode, said.stdout.split()[0]) == (0, str(count)), said.stderr
    wait_until_indexed(api)
    indexed = api.get(path).json()
    assert (indexed["index_status"], indexed["index_error"], indexed["version"]) == ("indexed", None, 1)
    for _ in range(2):
        assert api.post(f"{path}/reindex").json()["milvus_id"] is not None  # searches find it meanwhile
    wait_until_indexed(api)
    assert_problem(api.post("/product/999999/reindex"), 404, None, "no product 999999")
    api.delete(path)


def test_list_pages_sorts_and_filters(api: httpx.Client) -> None:
    for number in range(5):
        create_product(api, f"列表灯{number}", category="列表", price=str(number), sku=f"LIST-{number}")
    wait_until_indexed(api)
    page = api.get("/product/list", params={"category": "列表", "page_size": 2, "page": 2, "sort": "-price"}).json()
    assert (page["total"], page["page"], page["page_size"]) == (5, 2, 2)
    assert [item["title"] for item in page["items"]] == ["列表灯2", "列表灯1"]
    assert api.get("/product/list", params={"q": "表灯3"}).json()["total"] == 1
    assert api.get("/product/list", params={"q": "LIST-4"}).json()["items"][0]["title"] == "列表灯4"
    assert api.get("/product/list", params={"q": "%"}).json()["total"] == 0
    assert api.get("/product/list", params={"category": "列表", "index_status": "failed"}).json()["total"] == 0
    assert_problem(api.get("/product/list", params={"page_size": 201}), 422, "page_size", "200")
    assert_problem(api.get("/product/list", params={"sort": "colour"}), 422, "sort", "pattern")


def test_pictures_and_thumbnails_are_served_to_be_cached(api: httpx.Client, sofa: dict[str, Any]) -> None:
    original = api.get(sofa["image_url"])
    assert (original.content, original.headers["Content-Type"]) == (picture(), "image/png")
    assert original.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    head = api.head(sofa["image_url"])
    assert (head.status_code, head.content) == (200, b"")
    assert api.head("/health").status_code == 200
    assert api.get(sofa["image_url"], headers={"If-None-Match": original.headers["ETag"]}).status_code == 304
    for known in (f"W/{original.headers['ETag']}", f'"other", {original.headers["ETag"]}', "*"):
        assert api.get(sofa["image_url"], headers={"If-None-Match": known}).status_code == 304
    thumbnail = Image.open(io.BytesIO(api.get(sofa["thumbnail_url"]).content))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (64, 48))


def test_every_way_to_hand_in_a_picture_finds_the_same(api: httpx.Client, sofa: dict[str, Any]) -> None:
    wait_until_indexed(api)
    encoded = base64.b64encode(picture()).decode()
    answers = [
        api.post("/search", json={"mode": "image_to_image", "image_base64": encoded}),
        api.post("/search", json={"mode": "image_to_image", "image_base64": f"data:image/png;base64,{encoded}"}),
        api.post("/search", data={"mode": "image_to_image"}, files={"image": ("q.png", picture())}),
    ]
    hits = [[(hit["product"]["product_id"], hit["score"]) for hit in answer.json()["hits"]] for answer in answers]
    assert hits[0] == hits[1] == hits[2]
    assert hits[0][0][1] == pytest.approx(1.0, abs=1e-4)


def test_a_lost_thumbnail_is_made_again(api: httpx.Client, api_folder: Path) -> None:
    product = create_product(api, "缩略图", picture("plum"))
    url = product["thumbnail_url"]
    kept = api.get(url).content
    path = api_folder / "data" / url.removeprefix("/")
    for lose in (path.unlink, lambda: path.write_bytes(b"")):  # a power loss may leave an empty file
        lose()
        assert api.get(url).content == kept
        assert path.read_bytes() == kept
    path.unlink()
    (api_folder / "data" / product["image_url"].removeprefix("/")).unlink()
    assert_problem(api.get(url), 404, None, "no picture")


@pytest.mark.parametrize("image_format", PICTURE_FORMATS)
def test_every_accepted_format_is_indexed(api: httpx.Client, image_format: str) -> None:
    product = create_product(api, f"格式 {image_format}", picture("olive", (40, 30), image_format))
    wait_until_indexed(api)
    assert api.get(f"/product/{product['product_id']}").json()["index_status"] == "indexed"


def assert_problem(response: httpx.Response, status: int, field: str | None, reason: str) -> None:
    """A problem+json of this status whose words hold `reason`, naming `field` where one is wrong."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"].startswith("urn:tuwen:problem:")
    assert reason in problem["detail"], problem
    if field is not None:
        assert field in [error["field"] for error in problem["errors"]], problem


def test_what_is_like_a_product_is_found_by_the_vectors_that_it_has(
    api: httpx.Client, api_folder: Path, tiny_models: dict[str, str]
) -> None:
    """The same as by its picture and its title; its picture is not even read."""
    product = create_product(api, "紫色的落地灯", picture("purple"))
    create_product(api, "紫色的台灯", picture("violet"))
    wait_until_indexed(api)

    def others(**query: Any) -> list[tuple[int, float]]:
        hits = api.post("/search", json={**query, "top_k": 20}).raise_for_status().json()["hits"]
        found = [(hit["product"]["product_id"], round(hit["score"], 4)) for hit in hits]
        return [hit for hit in found if hit[0] != product["product_id"]][:3]

    image = base64.b64encode(picture("purple")).decode()
    stored = api_folder / "data" / str(product["image_url"]).removeprefix("/")
    aside = stored.rename(stored.with_name("aside"))
    for mode, query in (
        ("image_to_image", {"image_base64": image}),
        ("image_to_text", {"image_base64": image}),
        ("text_to_text", {"text": product["title"]}),
        ("text_to_image", {"text": product["title"]}),
    ):
        assert others(mode=mode, product_id=product["product_id"]) == others(mode=mode, **query), mode
    aside.rename(stored)
    api.delete(f"/product/{product['product_id']}").raise_for_status()
