"""Products with their pictures as a ZIP archive that an import takes back, made piece by piece while it is sent.

Pictures come first and rows last, each row of the very moment in which its picture was read. An archive has as many
products as an import takes files; what is behind them is the next one's.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.catalogue.pictures import Picture, pictures_of
from tuwen.database.engine import Database
from tuwen.errors import NotFound, PictureUnreadable
from tuwen.importing.export import record_of
from tuwen.importing.outgoing import Outgoing
from tuwen.pictures.store import ImageStore

MOST_PRODUCTS, AT_ONCE = 100_000, 8
ROWS, PICTURES = "products.jsonl", "pictures"
ROW_BYTES_IN_MEMORY, CHUNK_BYTES = 4 * 1024 * 1024, 1024 * 1024


def last_of_archive(database: Database, after: int, most: int = MOST_PRODUCTS) -> int | None:
    """The last product of the archive that begins behind `after`, where others follow; None where none do."""
    with database.read() as session:
        ids = sa.select(ProductRow.product_id).where(ProductRow.product_id > after).order_by(ProductRow.product_id)
        ends = list(session.scalars(ids.offset(most - 1).limit(2)))
    return ends[0] if len(ends) == 2 else None  # noqa: PLR2004  # it, and one behind it


def archive_of_products(
    database: Database, images: ImageStore, folder: Path, after: int, last: int | None
) -> Iterator[bytes]:
    """In pieces of a few pictures. Blocks."""
    outgoing, named = Outgoing(), set[str]()
    with (
        tempfile.SpooledTemporaryFile(max_size=ROW_BYTES_IN_MEMORY, dir=str(folder)) as rows,
        zipfile.ZipFile(outgoing, "w", zipfile.ZIP_STORED) as archive,  # pictures are compressed already
    ):
        while products := _products_after(database, after, last):
            for product, pictures in products:
                names = [_add_picture(archive, images, picture.image_path, named) for picture in pictures]
                there = [name for name in names if name is not None]
                image = {"image": there if there[1:] else there[0]} if there else {}
                rows.write(json.dumps(record_of(product) | image, ensure_ascii=False).encode() + b"\n")
            after = products[-1][0].product_id
            yield outgoing.take()
        rows.seek(0)
        member = zipfile.ZipInfo(ROWS)
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w", force_zip64=True) as packed:
            while chunk := rows.read(CHUNK_BYTES):
                packed.write(chunk)
                yield outgoing.take()
    yield outgoing.take()


def _products_after(database: Database, after: int, last: int | None) -> list[tuple[ProductRow, Sequence[Picture]]]:
    conditions = [ProductRow.product_id > after, *([ProductRow.product_id <= last] if last is not None else [])]
    with database.read() as session:
        statement = sa.select(ProductRow).where(*conditions).order_by(ProductRow.product_id).limit(AT_ONCE)
        products = list(session.scalars(statement))
        pictures = pictures_of(session, products)
    return [(product, pictures[product.product_id]) for product in products]


def _add_picture(archive: zipfile.ZipFile, images: ImageStore, path: str, named: set[str]) -> str | None:
    """Its name there; None where it is lost, which the import of its row says. What several have is in once."""
    name = f"{PICTURES}/{PurePosixPath(path).name}"
    if name not in named:
        try:
            data = images.read(path)
        except (NotFound, PictureUnreadable):
            return None
        named.add(name)
        archive.writestr(name, data)
    return name
