"""Products with their pictures as a ZIP archive that an import takes back, made piece by piece while it is sent.

Pictures come first and rows last, each row of the very moment in which its picture was read. An archive has no more
files than an import takes; what is behind them is the next one's.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.catalogue.pictures import Picture, pictures_of
from tuwen.database.engine import Database
from tuwen.database.shops import home_shop
from tuwen.errors import NotFound, PictureUnreadable
from tuwen.importing.archives import MOST_MEMBERS
from tuwen.importing.export import record_of
from tuwen.importing.outgoing import Outgoing
from tuwen.pictures.store import ImageStore

MOST_PRODUCTS, AT_ONCE = 100_000, 8
MOST_PICTURES = MOST_MEMBERS - 1  # beside the rows
ROWS, PICTURES = "products.jsonl", "pictures"
ROW_BYTES_IN_MEMORY, CHUNK_BYTES = 4 * 1024 * 1024, 1024 * 1024


def last_of_archive(
    database: Database, after: int, most: int = MOST_PRODUCTS, most_pictures: int = MOST_PICTURES
) -> int | None:
    """The last product of the archive that begins behind `after`, where others follow; None where none do."""
    columns = sa.select(ProductRow.product_id, ProductRow.image_count).where(ProductRow.product_id > after)
    last, pictures = None, 0
    with database.read() as session:
        columns = columns.where(ProductRow.shop_id == home_shop(session)).order_by(ProductRow.product_id)
        for product_id, image_count in session.execute(columns.limit(most + 1)):
            pictures += image_count
            if last is not None and (most == 0 or pictures > most_pictures):
                return last
            last, most = product_id, most - 1
    return None


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
                main, *further = [_add_picture(archive, images, picture.image_path, named) for picture in pictures]
                record = record_of(product) | {"image": [main, *further] if further else main}
                rows.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
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
        conditions.append(ProductRow.shop_id == home_shop(session))
        statement = sa.select(ProductRow).where(*conditions).order_by(ProductRow.product_id).limit(AT_ONCE)
        products = list(session.scalars(statement))
        pictures = pictures_of(session, products)
    return [(product, pictures[product.product_id]) for product in products]


def _add_picture(archive: zipfile.ZipFile, images: ImageStore, path: str, named: set[str]) -> str:
    """Its name there. What several have is in once; one that is lost is not, and the import of its row says so."""
    name = f"{PICTURES}/{PurePosixPath(path).name}"
    if name not in named:
        named.add(name)
        with suppress(NotFound, PictureUnreadable):
            archive.writestr(name, images.read(path))
    return name
