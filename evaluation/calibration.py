"""Fits how likely a hit is what was asked for, on searches of a running service, and has the service keep it.

On query files whose queries say what is relevant, `"relevant": []` among them; or without any, on searches made of the
catalogue itself: parts of titles, pictures cut and saved anew, and what no shop sells.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from rich.table import Table

from clients.catalogue_import import CatalogueError, answer_of
from evaluation.fitting import Fit, Pairs, Quality, cross_validated, fit, quality
from evaluation.measures import DEPTH
from evaluation.queries import Query, read_query_file
from evaluation.run import SEARCHES_AT_ONCE, ask, write_json

SIGNALS = ("title_cosine", "picture_cosine", "words")
DIGITS = 4
LEAST_QUERIES, LEAST_OF_EITHER = 20, 10
PAGE_SIZE = 200
OF_NO_SHOP = Path(__file__).resolve().parent / "query_files" / "no_match_tuning.jsonl"
Hit = Mapping[str, Any]


@dataclass(frozen=True)
class Labelled:
    query: Query
    is_relevant: Callable[[Hit], bool]


@dataclass(frozen=True)
class Calibrated:
    mode: str
    collection: str
    names: Sequence[str]
    fit: Fit
    queries: int
    hits: int
    quality: Quality
    """Cross-validated."""

    @property
    def weights(self) -> dict[str, float]:
        weights = zip(self.names, self.fit.weights, strict=True)
        return {"intercept": round(self.fit.intercept, DIGITS)} | {n: round(float(w), DIGITS) for n, w in weights}

    @property
    def fitted_on(self) -> dict[str, float | None]:
        measured = {n: None if v is None else round(v, DIGITS) for n, v in asdict(self.quality).items()}
        return {"queries": self.queries, "hits": self.hits, **measured}


def labelled(queries: Sequence[Query]) -> list[Labelled]:
    return [Labelled(query, _named_by(query)) for query in queries]


def _named_by(query: Query) -> Callable[[Hit], bool]:
    def is_relevant(hit: Hit) -> bool:
        product = hit["product"]
        return product["product_id"] in query.relevant or product["sku"] in query.relevant

    return is_relevant


def calibrate(
    client: httpx.Client, mode: str, asked: Sequence[Labelled], on_progress: Callable[[int], None]
) -> Calibrated:
    """Raises CatalogueError where a search is refused, or too little was found of either kind."""
    signals, is_relevant, numbers = [], [], []
    collections: dict[str, None] = {}
    with ThreadPoolExecutor(SEARCHES_AT_ONCE) as pool:
        answers = pool.map(lambda each: ask(client, each.query, {"relevance": True}), [*asked])
        for number, (each, answer) in enumerate(zip(asked, answers, strict=True)):
            collections[answer["index"]["collection"]] = None
            for hit in answer["hits"][:DEPTH]:
                signals.append([hit["signals"][name] for name in SIGNALS])
                is_relevant.append(each.is_relevant(hit))
                numbers.append(number)
            on_progress(number + 1)
    if len(collections) > 1:
        raise CatalogueError("The index was changed meanwhile; calibrate the new one.")
    pairs = _pairs(signals, is_relevant, numbers)
    _require_enough(mode, pairs)
    fitted = fit(pairs)
    queries = len(set(pairs.queries.tolist()))
    measured = quality(cross_validated(pairs), pairs)
    [collection] = collections
    return Calibrated(mode, collection, pairs.names, fitted, queries, len(pairs.is_relevant), measured)


def _pairs(signals: Sequence[Sequence[float | None]], is_relevant: Sequence[bool], numbers: Sequence[int]) -> Pairs:
    """With the signals that the mode has, and the hits that have all of them."""
    values = np.array(signals, np.float64).reshape(-1, len(SIGNALS))  # None: not a number
    has = [bool(np.isfinite(values[:, column]).any()) for column in range(len(SIGNALS))]
    whole = ~np.isnan(values[:, has]).any(axis=1)
    names = [name for name, it_has in zip(SIGNALS, has, strict=True) if it_has]
    return Pairs(names, values[whole][:, has], np.array(is_relevant, np.float64)[whole], np.array(numbers, int)[whole])


def _require_enough(mode: str, pairs: Pairs) -> None:
    relevant = int(pairs.is_relevant.sum())
    queries, others = len(set(pairs.queries.tolist())), len(pairs.is_relevant) - relevant
    if queries < LEAST_QUERIES or min(relevant, others) < LEAST_OF_EITHER:
        raise CatalogueError(
            f"{mode} has {queries} queries that found anything, {relevant} hits that are relevant and {others} others: "
            f"that takes {LEAST_QUERIES}, and {LEAST_OF_EITHER} of either."
        )


def store(client: httpx.Client, found: Calibrated) -> None:
    """Raises CatalogueError where the index has been changed meanwhile, or the key may not."""
    body = {"collection": found.collection, "weights": found.weights, "fitted_on": found.fitted_on}
    answer_of(client.put(f"/calibration/{found.mode}", json=body))


def save(client: httpx.Client, found: Sequence[Calibrated], file: Path) -> None:
    """As `models/calibrations.json` is, by the fingerprint of the models. Raises CatalogueError."""
    fingerprint = answer_of(client.get("/calibration"))["fingerprint"]
    modes = {each.mode: {"weights": each.weights, "fitted_on": each.fitted_on} for each in found}
    write_json({fingerprint: modes}, file)


def table(found: Sequence[Calibrated]) -> Table:
    columns = ("mode", "queries", "hits", "AUROC", "log loss", "calibration error", "threshold", "log-odds")
    shown = Table(*columns, caption="each hit judged by what was fitted without its query")
    for each in found:
        of = each.quality
        measured = [f"{of.auroc:.3f}", f"{of.log_loss:.3f}", f"{of.calibration_error:.3f}"]
        measured.append("" if of.threshold is None else f"{of.threshold:.2f}")
        weights = each.weights
        formula = f"{weights.pop('intercept'):+.2f} " + " ".join(f"{w:+.2f}·{n}" for n, w in weights.items() if w)
        shown.add_row(each.mode, str(each.queries), str(each.hits), *measured, formula)
    return shown


# --- Without query files ---------------------------------------------------------------------------------------------


def made_of_catalogue(client: httpx.Client, mode: str, wanted: int, missing: Sequence[str]) -> list[Labelled]:
    """Searches for `wanted` of its products, evenly spread, and of texts for `missing`, which it has not.

    Raises CatalogueError.
    """
    products = _some_products(client, wanted)
    if mode.startswith("image_"):
        return [_by_changed_picture(client, mode, product, number) for number, product in enumerate(products)]
    made = [
        _by_part_of_title(mode, product, str(products[number - 1]["title"]), number)
        for number, product in enumerate(products)
    ]
    return made + [Labelled(Query(f"missing {text}", mode, {}, text=text), lambda _: False) for text in missing]


def _some_products(client: httpx.Client, wanted: int) -> list[Any]:
    total = answer_of(client.get("/product/list", params={"page_size": 1}))["total"]
    pages = max(1, -(-total // PAGE_SIZE))
    chosen = sorted({number * pages // min(pages, wanted) + 1 for number in range(min(pages, wanted))})
    return list(islice(_products_of(client, chosen, -(-wanted // len(chosen))), wanted))


def _products_of(client: httpx.Client, pages: Sequence[int], of_each: int) -> Iterator[Any]:
    for page in pages:
        params: dict[str, str | int] = {"page": page, "page_size": PAGE_SIZE, "sort": "product_id"}
        items = answer_of(client.get("/product/list", params=params))["items"]
        yield from items[:: max(1, len(items) // of_each)][:of_each]


def _by_part_of_title(mode: str, product: Any, other: str, number: int) -> Labelled:
    """A third, half or two thirds of its title, from its beginning, its end or its middle, by turns; of every second
    with a third of the characters (of English, words) from another title, since who asks in words of his own has only
    some of a title's. What has all of the part in its title is relevant, too."""
    title = str(product["title"])
    pieces = title.split() if title.isascii() else list(title)
    length = max(2, len(pieces) * (2, 3, 4)[number % 3] // 6)
    begin = (0, len(pieces) - length, (len(pieces) - length) // 2)[number // 3 % 3]
    pieces = pieces[max(0, begin) :][:length]
    between = " " if title.isascii() else ""
    part, text = between.join(pieces).strip(), between.join(pieces).strip()
    if number % 2:
        foreign = other.split() if title.isascii() else list(other)
        text = between.join(foreign[at % len(foreign)] if at % 3 == 1 else each for at, each in enumerate(pieces))

    def is_relevant(hit: Hit) -> bool:
        of_hit = hit["product"]
        return of_hit["product_id"] == product["product_id"] or all(word in of_hit["title"] for word in part.split())

    return Labelled(Query(f"{product['product_id']}", mode, {}, text=text), is_relevant)


def _by_changed_picture(client: httpx.Client, mode: str, product: Any, number: int) -> Labelled:
    """A quarter of its picture cut off, by turns at each side, and saved anew. A product of the same title is as
    relevant."""

    def changed() -> bytes:
        response = client.get(product["image_url"])
        if response.status_code != httpx.codes.OK:
            raise CatalogueError(f"The picture {product['image_url']} can't be had: {response.status_code}.")
        return _cut(response.content, number)

    def is_relevant(hit: Hit) -> bool:
        of_hit = hit["product"]
        return bool(of_hit["product_id"] == product["product_id"] or of_hit["title"] == product["title"])

    return Labelled(Query(f"{product['product_id']}", mode, {}, picture=changed), is_relevant)


def _cut(data: bytes, number: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    cut = [0, 0, 0, 0]
    cut[number % 4] = (width, height)[number % 2] // 4
    left, top, right, bottom = cut
    buffer = io.BytesIO()
    image.crop((left, top, width - right, height - bottom)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def what_no_shop_sells() -> list[str]:
    """Services and nonsense. What else a catalogue has not some shop may have."""
    return [str(query.text) for query in read_query_file(OF_NO_SHOP, "") if query.category in ("service", "nonsense")]
