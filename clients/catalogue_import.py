"""Loads a catalogue (a JSON-lines file and its pictures) into a running service, over the public API. Repeatable."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from clients.patience import PatientClient
from tuwen.errors import AppError

UPLOADS_AT_ONCE = 4
PAGE_SIZE = 200
REQUEST_TIMEOUT_S = 60.0
PATIENCE_S = 120.0  # two windows of a limit per minute
POLL_S = 0.3


class CatalogueError(AppError):
    """The catalogue's file or the service made loading impossible; the message says which and why."""


class ServiceAway(CatalogueError):
    """It could not be reached, or broke off. Whoever had its answers before may wait for it."""


class KeyNeeded(CatalogueError):
    """It wants an API key, or another one: the first key may have been made just now."""


@dataclass(frozen=True)
class CatalogueItem:
    """One line: `sku`, `title` and `image` (a path beside the file) are needed."""

    sku: str
    title: str
    image: Path
    category: str | None
    price: str | None
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    created: int
    present: int
    """Skus that the service had already; they were left as they are."""


class ServiceClient(PatientClient):
    """Raises ServiceAway where no service answers."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            return super().send(request, **options)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceAway(
                f"No service answers at {self.base_url} ({reason}). Start it with 'fastapi run main.py --host 127.0.0.1"
                " --no-proxy-headers', or name the address of another by --api-url or API_URL."
            ) from error


def read_catalogue(file: Path) -> list[CatalogueItem]:
    """Raises CatalogueError, naming the line."""
    return [_read_line(line, file.parent, number) for number, line in read_lines(file, "catalogue")]


def read_lines(file: Path, what: str) -> list[tuple[int, str]]:
    """Those that are not empty, each with its number, from 1 on. Raises CatalogueError."""
    try:
        # Editors on Windows put a mark in front of UTF-8, which `utf-8-sig` leaves out. Not `splitlines`, which would
        # also split at U+2028 and its kind inside of a text.
        lines = enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1)
    except OSError as error:
        raise CatalogueError(f"The {what} can't be read: {error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CatalogueError(
            f"The {what} {file} is not UTF-8 (line {line}, byte {error.start}): save it as UTF-8, or convert it, such "
            "as by 'iconv -f GBK -t UTF-8'."
        ) from error
    return [(number, line) for number, line in lines if line.strip()]


def open_client(api_url: str, api_key: str = "") -> ServiceClient:
    """Raises CatalogueError."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        return ServiceClient(
            patience_s=PATIENCE_S, base_url=api_url, timeout=REQUEST_TIMEOUT_S, trust_env=False, headers=headers
        )
    except httpx.InvalidURL as error:
        raise CatalogueError(f"{api_url!r} is no address of a service: {error}") from error


def load_catalogue(client: httpx.Client, items: list[CatalogueItem], on_progress: Callable[[int], None]) -> Loaded:
    """Create every item whose sku the service does not have. Raises CatalogueError at the first that it refuses."""
    present = {product["sku"] for product in iterate_products(client)}
    missing = [item for item in items if item.sku not in present]
    on_progress(len(items) - len(missing))
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(lambda item: _upload(client, item), missing), start=1):
            on_progress(len(items) - len(missing) + done)
    return Loaded(created=len(missing), present=len(items) - len(missing))


def wait_until_indexed(client: httpx.Client, on_progress: Callable[[int], None]) -> int:
    """Until no product is pending; returns how many are indexed. Progress reports the count of indexed ones."""
    while True:
        pending, indexed = (_count(client, status) for status in ("pending", "indexed"))
        on_progress(indexed)
        if pending == 0:
            return indexed
        time.sleep(POLL_S)


def iterate_products(client: httpx.Client) -> Iterator[dict[str, Any]]:
    """All products of a service, oldest first."""
    page = 1
    while True:
        parameters: dict[str, str | int] = {"page": page, "page_size": PAGE_SIZE, "sort": "product_id"}
        items = answer_of(client.get("/product/list", params=parameters))["items"]
        yield from items
        if len(items) < PAGE_SIZE:
            return
        page += 1


def read_picture(item: CatalogueItem) -> bytes:
    """Raises CatalogueError."""
    try:
        return item.image.read_bytes()
    except OSError as error:
        raise CatalogueError(f"{item.sku}: its picture can't be read: {error}") from error


def _count(client: httpx.Client, index_status: str) -> int:
    return int(answer_of(client.get("/product/list", params={"index_status": index_status, "page_size": 1}))["total"])


def _upload(client: httpx.Client, item: CatalogueItem) -> None:
    fields = {"sku": item.sku, "title": item.title, "attributes": json.dumps(item.attributes, ensure_ascii=False)}
    if item.category is not None:
        fields["category"] = item.category
    if item.price is not None:
        fields["price"] = item.price
    files = {"image": (item.image.name, read_picture(item))}
    response = client.post("/product", data=fields, files=files)
    if response.status_code != httpx.codes.CONFLICT:  # somebody else created the same sku meanwhile
        answer_of(response)


def answer_of(response: httpx.Response) -> Any:
    """Its JSON. Raises CatalogueError where it is an error, or not this service's."""
    if response.is_success:
        try:
            return response.json()
        except ValueError as error:
            raise CatalogueError(f"What answers at {response.request.url} is not this service's API.") from error
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError) as error:
        said = f"{response.status_code} {response.reason_phrase}"
        raise CatalogueError(f"What answers at {response.request.url} is not this service's API: {said}") from error
    kind = KeyNeeded if response.status_code == httpx.codes.UNAUTHORIZED else CatalogueError
    raise kind(f"{response.request.method} {response.request.url.path}: {response.status_code} {detail}")


def _read_line(line: str, folder: Path, number: int) -> CatalogueItem:
    try:
        record = json.loads(line)
        return CatalogueItem(
            sku=record["sku"],
            title=record["title"],
            image=folder / record["image"],
            category=record.get("category"),
            price=None if record.get("price") is None else str(record["price"]),
            attributes=record.get("attributes", {}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogueError(
            f"Line {number} of the catalogue is not a product with sku, title and image: {error!r}"
        ) from error
