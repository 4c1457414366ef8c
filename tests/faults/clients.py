"""Clients that create, change, delete, import and search at random, and write down what came of it."""

import base64
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from clients.catalogue_import import CatalogueError, load_catalogue, open_client, read_catalogue
from tests.faults.actor import Actor
from tests.faults.history import History, Kind, Operation, Outcome, Sighting, State
from tests.tiny_models import CHARACTERS

TIMEOUT_S = 15.0
PAUSE_S, REFUSED_PAUSE_S = 0.1, 0.5
TITLE_LENGTH = 10
BLOCKS, BLOCK_PIXELS = 4, 8
IMPORT_SIZE = 3
SECOND_PICTURES = 0.3  # of the products that are created have one
MOST_PRODUCTS = 60  # of one client at a time


class Pictures:
    """All that were ever made, by the SHA-256 of their bytes: 4 × 4 blocks of random colours."""

    def __init__(self) -> None:
        self._by_sha256: dict[str, bytes] = {}

    def new(self, chance: random.Random) -> str:
        image = Image.new("RGB", (BLOCKS * BLOCK_PIXELS,) * 2)
        for x in range(BLOCKS):
            for y in range(BLOCKS):
                colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
                corner = x * BLOCK_PIXELS, y * BLOCK_PIXELS
                image.paste(colour, (*corner, corner[0] + BLOCK_PIXELS, corner[1] + BLOCK_PIXELS))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        self._by_sha256[sha256] = buffer.getvalue()
        return sha256

    def data(self, sha256: str) -> bytes:
        return self._by_sha256[sha256]


class Client(Actor):
    """One after another, at whichever API comes; a product belongs to the client that made it."""

    def __init__(
        self,
        number: int,
        seed: int,
        urls: Sequence[str],
        history: History,
        pictures: Pictures,
        folder: Path,
        *,
        draws: bool,
    ) -> None:
        super().__init__(f"client {number}")
        self._number, self._urls, self._history, self._pictures, self._folder = number, urls, history, pictures, folder
        self._chance = random.Random(f"client {number} of {seed}")
        self._made = 0
        self._ids: dict[str, int | None] = {}
        """Products that may be there, by sku; None where no answer has said the id."""
        self._queries: list[tuple[str, str]] = []
        """Titles and pictures that products have or had."""
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._draws = draws

    def act(self) -> None:
        with self._http:
            while not self.stopping.wait(self._chance.random() * PAUSE_S):
                self._step()

    def _step(self) -> None:
        steps = {self._create: 20, self._search: 40, self._import: 1, self._draw: 1 if self._draws else 0}
        if self._ids:
            steps |= {self._change: 20, self._read: 8, self._delete: 10 + max(0, len(self._ids) - MOST_PRODUCTS)}
        self._chance.choices(list(steps), list(steps.values()))[0]()

    def _create(self) -> None:
        sku, fields = self._new_product()
        operation = self._history.begin(self._number, "create", sku, fields)
        form = {"sku": sku, "title": fields["title"], "price": fields["price"]}
        files: list[tuple[str, tuple[str, bytes]]] = list(self._file(fields).items())
        if self._chance.random() < SECOND_PICTURES:
            files.append(("images", ("second.png", self._pictures.data(self._pictures.new(self._chance)))))
        self._call(operation, "POST", "/product", data=form, files=files)
        self._ids[sku] = operation.seen[0].state.product_id if operation.seen else None
        self._queries.append((fields["title"], fields["picture"]))
        if operation.outcome == "failed":
            del self._ids[sku]

    def _import(self) -> None:
        items = [self._new_product() for _ in range(IMPORT_SIZE)]
        file = self._folder / f"import-{self._number}-{self._made}.jsonl"
        for sku, fields in items:
            (self._folder / f"{sku}.png").write_bytes(self._pictures.data(fields["picture"]))
        lines = [{"sku": s, "title": f["title"], "price": f["price"], "image": f"{s}.png"} for s, f in items]
        file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        operations = [self._history.begin(self._number, "create", sku, fields) for sku, fields in items]
        outcome, answer = self._import_file(file)
        for operation in operations:
            self._history.end(operation, outcome, answer)
            self._ids[operation.sku] = None

    def _import_file(self, file: Path) -> tuple[Outcome, str]:
        with open_client(self._chance.choice(self._urls)) as client:
            try:
                load_catalogue(client, read_catalogue(file), lambda _: None)
            except CatalogueError as error:
                return "unknown", f"import: {error.detail[:100]}"
        return "ok", "import"

    def _change(self) -> None:
        sku, product_id = self._any_product()
        if product_id is None:
            return
        _, new = self._new_product()
        names = self._chance.choice((["title"], ["price"], ["picture"], ["title", "price", "picture"]))
        fields = {name: new[name] for name in names}
        operation = self._history.begin(self._number, "change", sku, fields)
        form = {name: value for name, value in fields.items() if name != "picture"}
        files = self._file(fields) if "picture" in fields else None
        self._call(operation, "PATCH", f"/product/{product_id}", data=form, files=files)
        if operation.outcome == "ok":
            self._queries += [(seen.state.title, seen.state.picture) for seen in operation.seen]

    def _delete(self) -> None:
        sku, product_id = self._any_product()
        if product_id is None:
            return
        operation = self._history.begin(self._number, "delete", sku)
        self._call(operation, "DELETE", f"/product/{product_id}")
        if operation.outcome == "ok" or operation.is_gone:
            del self._ids[sku]

    def _read(self) -> None:
        self._any_product()

    def _any_product(self) -> tuple[str, int | None]:
        """One of them. Where no answer has said its id, it is looked for, and forgotten if it is not there."""
        sku = self._chance.choice(list(self._ids))
        product_id = self._ids[sku]
        operation = self._history.begin(self._number, "read", sku)
        if product_id is None:
            self._call(operation, "GET", "/product/list", params={"q": sku})
            if operation.outcome != "ok":
                return sku, None
            product_id = operation.seen[0].state.product_id if operation.seen else None
        else:
            self._call(operation, "GET", f"/product/{product_id}")
            if operation.is_gone:
                product_id = None
        if operation.outcome == "ok" and product_id is None:
            del self._ids[sku]
        else:
            self._ids[sku] = product_id
        return sku, product_id

    def _search(self) -> None:
        if not self._queries:
            return
        title, picture = self._chance.choice(self._queries[-100:])
        image = base64.b64encode(self._pictures.data(picture)).decode()
        query = self._chance.choice(
            (
                {"mode": "text_to_text", "text": title},
                {"mode": "text_to_image", "text": title},
                {"mode": "image_to_image", "image_base64": image},
                {"mode": "image_to_text", "image_base64": image},
            )
        )
        operation = self._history.begin(self._number, "search", sent={"mode": query["mode"]})
        self._call(operation, "POST", "/search", json={**query, "top_k": 20})

    def _draw(self) -> None:
        operation = self._history.begin(self._number, "generate")
        self._call(operation, "POST", "/generate", json={"prompt": self._new_title(), "steps": 1})

    def _call(self, operation: Operation, method: str, path: str, **request: Any) -> None:
        try:
            response = self._http.request(method, self._chance.choice(self._urls) + path, **request)
        except httpx.ConnectError:  # nothing was sent
            self._history.end(operation, "failed", "no connection")
            self.stopping.wait(REFUSED_PAUSE_S)
            return
        except httpx.HTTPError as error:
            self._history.end(operation, "unknown", type(error).__name__)
            return
        if response.is_success:
            operation.seen = _sightings(response)
        operation.is_gone = response.status_code == httpx.codes.NOT_FOUND
        self._history.end(operation, _outcome(response, operation.kind), _in_short(response))

    def _new_product(self) -> tuple[str, dict[str, str]]:
        self._made += 1
        fields = {
            "title": self._new_title(),
            "price": f"{self._chance.randrange(1, 100_000) / 100:.2f}",
            "picture": self._pictures.new(self._chance),
        }
        return f"c{self._number}-{self._made}", fields

    def _new_title(self) -> str:
        return "".join(self._chance.choice(CHARACTERS) for _ in range(TITLE_LENGTH))

    def _file(self, fields: Mapping[str, str]) -> dict[str, tuple[str, bytes]]:
        return {"image": ("picture.png", self._pictures.data(fields["picture"]))}


def as_sighting(product: Mapping[str, Any]) -> Sighting:
    picture = Path(product["image_url"]).stem
    return Sighting(
        product["sku"] or "",
        State(product["product_id"], product["version"], product["title"], product["price"], picture),
    )


def _sightings(response: httpx.Response) -> list[Sighting]:
    if response.status_code == httpx.codes.NO_CONTENT:
        return []
    body = response.json()
    products = [body] if "sku" in body else body.get("items", [hit["product"] for hit in body.get("hits", [])])
    return [as_sighting(product) for product in products]


def _outcome(response: httpx.Response, kind: Kind) -> Outcome:
    if response.is_success or (kind == "read" and response.status_code == httpx.codes.NOT_FOUND):
        return "ok"
    return "unknown" if response.is_server_error else "failed"


def _in_short(response: httpx.Response) -> str:
    if response.is_success:
        return str(response.status_code)
    try:
        return f"{response.status_code} {response.json()['detail'][:120]}"
    except (ValueError, KeyError):
        return f"{response.status_code} {response.text[:120]}"
