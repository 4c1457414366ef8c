"""Vectors and products in any number: the demo catalogue's, and others around them.

Not random directions: those have no neighbours, and what an index finds among them says little of a catalogue.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from PIL import Image

from benchmarks.services import Service, demo_items, running_service, settings_of
from nlp_models import load_encoders
from orm_models import ProductRow, ProductVectorRow, utc_now
from tuwen.assembly import open_stores
from tuwen.catalogue.terms import make_terms
from tuwen.catalogue.twins import VERSION as COMPARED
from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.settings import Settings
from tuwen.vectors.registry import require_live_index
from vector_db import RowKey, VectorRow, new_row_token

BATCH = 2000
BASE_OF = 32  # encoded together
# A vector's cosine to the one that it was made from is 0.9 or so: another chair, not the same.
NOISE = 0.5
# The share of the products in each category; a filter on it lets so many through.
SELECTIVITIES = {"one in a thousand": 0.001, "one in a hundred": 0.01, "one in ten": 0.1, "every other": 0.5}


@dataclass(frozen=True)
class Vectors:
    """Of products, a row each."""

    image_clip: Embeddings
    text_clip: Embeddings
    text_bge: Embeddings
    titles: Sequence[str]


def demo_vectors(settings: Settings, count: int | None = None) -> Vectors:
    """The demo catalogue's, by the models of the settings."""
    encoders, items = load_encoders(settings), demo_items(count)
    titles = [item.title for item in items]
    images, texts, documents = [], [], []
    for start in range(0, len(items), BASE_OF):
        part = items[start : start + BASE_OF]
        images.append(encoders.clip.encode_images([Image.open(item.image).convert("RGB") for item in part]))
        texts.append(encoders.clip.encode_texts([item.title for item in part]))
        documents.append(encoders.text.encode_documents([item.title for item in part]))
    return Vectors(np.concatenate(images), np.concatenate(texts), np.concatenate(documents), titles)


def batches_around(base: Vectors, count: int) -> Iterator[Vectors]:
    """The base, and then others around it, in all `count`."""
    for start in range(0, count, BATCH):
        numbers = np.arange(start, min(start + BATCH, count))
        generator = np.random.default_rng(start)
        origins = numbers % len(base.titles)
        noise = np.where(numbers < len(base.titles), 0.0, NOISE)[:, None]
        yield Vectors(
            image_clip=_moved(base.image_clip[origins], noise, generator),
            text_clip=_moved(base.text_clip[origins], noise, generator),
            text_bge=_moved(base.text_bge[origins], noise, generator),
            titles=[f"{base.titles[number % len(base.titles)]} {number}" for number in numbers.tolist()],
        )


def _moved(rows: Embeddings, noise: np.ndarray[Any, Any], generator: np.random.Generator) -> Embeddings:
    return unit_rows(rows + noise * generator.standard_normal(rows.shape) / np.sqrt(rows.shape[1]))


def category_of(number: int) -> str:
    """Spread over all of them, however many there are: by a hash, not in rows beside each other."""
    place = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:6]) / 2**48
    for category, share in SELECTIVITIES.items():
        if place < share:
            return category
        place -= share
    return "any other"


def vector_rows(vectors: Vectors, first_id: int) -> list[VectorRow]:
    return [
        VectorRow(
            product_id=first_id + number,
            row_token=new_row_token(),
            image_clip_vector=vectors.image_clip[number],
            text_clip_vector=vectors.text_clip[number],
            text_bge_vector=vectors.text_bge[number],
            image_path="",
            title=title,
            category=category_of(first_id + number),
            attributes={},
        )
        for number, title in enumerate(vectors.titles)
    ]


@contextmanager
def filled_service(folder: Path, products: int, **settings: object) -> Iterator[Service]:
    """With so many indexed products: the demo catalogue's vectors and others around them."""
    with running_service(folder, **settings):
        pass  # makes the index
    own = settings_of(folder, **settings)
    fill(own, demo_vectors(own, min(products, 820)), products)
    with running_service(folder, **settings) as service:
        yield service


def fill(settings: Settings, base: Vectors, count: int) -> None:
    """An empty installation, which a service of these settings has opened once, gets so many indexed products.

    Their pictures are not there, and count as compared with each other: of 100,000 that took half a core for most of an
    hour, beside what was measured. In this process, and so while no service has Milvus Lite's file.
    """
    with open_stores(settings) as stores:
        index = require_live_index(stores.database, stores.vector_db)
        first_id = 1
        for vectors in batches_around(base, count):
            rows = vector_rows(vectors, first_id)
            ids = stores.vector_db.insert(index.collection, rows)
            keys = [RowKey(key, row.product_id, row.row_token) for key, row in zip(ids, rows, strict=True)]
            bound = {"vector_index_id": index.vector_index_id, "version": 1}
            with stores.database.write() as session:
                session.execute(sa.insert(ProductRow), [_product(row) for row in rows])
                session.execute(sa.insert(ProductVectorRow), [key._asdict() | bound for key in keys])
                make_terms(session, [row.product_id for row in rows])
            first_id += len(rows)


def _product(row: VectorRow) -> dict[str, Any]:
    return {
        "product_id": row.product_id,
        "sku": f"P{row.product_id}",
        "title": row.title,
        "category": row.category,
        "attributes": {},
        "image_path": f"{row.product_id}.webp",
        "image_sha256": hashlib.sha256(str(row.product_id).encode()).hexdigest(),
        "image_width": 512,
        "image_height": 512,
        "index_status": "indexed",
        "sketch_version": COMPARED,
        "created_at": utc_now(),
        "updated_at": utc_now(),
        "indexed_at": utc_now(),
    }
