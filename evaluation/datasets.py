"""Public data sets as queries, and as products that `cli.py import` takes: MUGE and Flickr30k-CN in Chinese-CLIP's
layout, EcomRetrieval and its kind (C-MTEB, BEIR, Multi-CPR) as queries, corpus and qrels.

Of Chinese-CLIP's layout (`clients/chinese_clip_layout.py`) a text asks for its pictures, each of which is a product; or
a picture for its texts, each of which is one. Of the other a product is a line of the corpus, whose text is its title.
"""

import csv
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from clients.catalogue_import import CatalogueError, read_lines
from clients.chinese_clip_layout import TEXTS, decoded, images_beside, pictures
from evaluation.queries import Key, Query, checked, read_query_file

Made = TypeVar("Made")

NO_PICTURE = "no-picture.png"
# Without a heading: query and product, or as TREC has them, with a column in between that says nothing.
COLUMNS = {2: ("query", "product"), 3: ("query", "product", "grade"), 4: ("query", "", "product", "grade")}
HEADINGS = {"query-id": "query", "qid": "query", "corpus-id": "product", "pid": "product", "score": "grade"}


def read_queries(source: Path, mode: str) -> list[Query]:
    """Of any kind. `mode`: empty for the usual one, or each query's own. Raises CatalogueError."""
    if source.is_dir():
        return checked(list(_of_qrels(source, mode or "text_to_text")), source)
    if images := _images_of(source):
        if (mode or "text_to_image").startswith("image_"):
            return checked(list(_pictures_that_ask(source, images, mode)), source)
        return checked(list(_texts_that_ask(source, mode or "text_to_image")), source)
    return read_query_file(source, mode)


def write_catalogue(source: Path, mode: str, archive: Path) -> int:
    """The products that the queries of a data set are asked of; how many. Raises CatalogueError."""
    images = None if source.is_dir() else _images_of(source)
    if images is not None and mode.startswith("image_"):
        raise CatalogueError(f"'cli.py import {source}' takes this file as it is: a product for each text.")
    if images is None and not source.is_dir():
        raise CatalogueError(f"{source} is a query file, and names products of a catalogue that you have.")
    with zipfile.ZipFile(archive, "w") as file:
        products = _with_pictures(file, images) if images else _with_titles(file, source)
        lines = [json.dumps(product, ensure_ascii=False) for product in products]
        file.writestr("products.jsonl", "\n".join(lines), zipfile.ZIP_DEFLATED)
    return len(lines)


def _images_of(source: Path) -> Path | None:
    images = images_beside(source)
    if images is None and source.name.endswith(TEXTS):
        raise CatalogueError(f"{source} is in Chinese-CLIP's layout and lacks its images beside it, NAME_imgs.tsv.")
    return images


def _with_pictures(file: zipfile.ZipFile, images: Path) -> Iterator[dict[str, str]]:
    """Titled by their numbers: no text that asks may stand in a title."""
    for member in pictures(images):
        file.writestr(member.name, member.data)
        number = Path(member.name).stem
        yield {"sku": number, "title": number, "image": member.name}


def _with_titles(file: zipfile.ZipFile, folder: Path) -> Iterator[dict[str, str]]:
    blank = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(blank, "PNG")
    file.writestr(NO_PICTURE, blank.getvalue())
    for key, title in _texts(folder, "corpus"):
        yield {"sku": key, "title": title, "image": NO_PICTURE}


def _texts_that_ask(texts: Path, mode: str) -> Iterator[Query]:
    for text_id, text, its_images in _made_of_lines(texts, _asking_text):
        relevant: dict[Key, int] = dict.fromkeys(its_images, 1)
        if relevant:
            yield Query(text_id, mode, relevant, text=text)


def _pictures_that_ask(texts: Path, images: Path, mode: str) -> Iterator[Query]:
    of_image: dict[str, dict[Key, int]] = defaultdict(dict)
    for text_id, _, its_images in _made_of_lines(texts, _asking_text):
        for image in its_images:
            of_image[image][text_id] = 1
    for image, offset in _places(images):
        if relevant := of_image.pop(image, None):
            yield Query(image, mode, relevant, picture=partial(_picture_at, images, offset))


def _places(images: Path) -> Iterator[tuple[str, int]]:
    """Of each line: a data set's pictures don't fit into memory."""
    with images.open("rb") as file:
        offset = 0
        for line in file:
            yield line.partition(b"\t")[0].decode(errors="replace"), offset
            offset += len(line)


def _picture_at(images: Path, offset: int) -> bytes:
    with images.open("rb") as file:
        file.seek(offset)
        image, _, encoded = file.readline().strip().partition(b"\t")
    data = decoded(encoded)
    if not data:
        raise CatalogueError(f"{images}: the picture {image.decode(errors='replace')} is not base64.")
    return data


def _of_qrels(folder: Path, mode: str) -> Iterator[Query]:
    relevant: dict[str, dict[Key, int]] = defaultdict(dict)
    for row in _rows(_file_of(folder, "qrels")):
        try:
            grade = int(float(row.get("grade", 1)))
            if grade > 0:
                relevant[str(row["query"])][str(row["product"])] = grade
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogueError(f"The qrels of {folder} have a row that is none: {row}") from error
    for key, text in _texts(folder, "queries"):
        if key in relevant:  # as trec_eval: what nobody judged is not counted
            yield Query(key, mode, relevant[key], text=text)


def _texts(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    file = _file_of(folder, name)
    if file.suffix == ".jsonl":
        yield from _made_of_lines(file, _text)
    else:
        for _, line in read_lines(file, name):
            key, _, text = line.partition("\t")
            yield key, text.strip()


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".jsonl":
        yield from _made_of_lines(file, _renamed)
        return
    lines = [line for _, line in read_lines(file, "qrels")]
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    has_heading = bool(rows) and any(cell in HEADINGS for cell in rows[0])
    names = [HEADINGS.get(cell, cell) for cell in rows[0]] if has_heading else COLUMNS.get(len(rows[0]), ())
    yield from (dict(zip(names, row, strict=False)) for row in rows[has_heading:])


def _file_of(folder: Path, name: str) -> Path:
    """`corpus.jsonl`, `qrels/test.tsv` and the like."""
    candidates = [path for pattern in (f"{name}.*", f"{name}/test.*") for path in sorted(folder.glob(pattern))]
    readable = [path for path in candidates if path.suffix in (".jsonl", ".tsv", ".txt")]
    if not readable:
        raise CatalogueError(f"{folder} has no {name}.jsonl, {name}.tsv or {name}/test.tsv.")
    return readable[0]


def _made_of_lines(file: Path, make: Callable[[Any], Made]) -> Iterator[Made]:
    for number, line in read_lines(file, "data set"):
        try:
            yield make(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CatalogueError(f"Line {number} of {file} is not understood: {error!r}") from error


def _asking_text(record: Any) -> tuple[str, str, list[str]]:
    return str(record["text_id"]), str(record["text"]), [str(image) for image in record["image_ids"]]


def _text(record: Any) -> tuple[str, str]:
    key = record["_id"] if "_id" in record else record["id"]
    return str(key), " ".join(filter(None, (record.get("title"), record["text"])))


def _renamed(record: Any) -> dict[str, Any]:
    return {HEADINGS.get(name, name): value for name, value in record.items()}
