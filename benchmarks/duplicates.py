"""How well copies of pictures are found: each of the demo catalogue's is saved anew, scaled, cropped by up to a tenth
of each side, and marked, and looked for among all of them as a new product's picture is.

    python -m benchmarks.duplicates                  # every second product; by the others (--tuning) limits were chosen
    python -m benchmarks.duplicates --others 100000  # beside so many sketches of nothing that there is

A product that is found and is not the copied one is wrong; so says the column "strict". The other column lets those
pass whose own picture differs from that by under 5 % (two sockets of one series): no mark leaves less.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clients.catalogue_import import read_catalogue
from orm_models import ProductRow, ProductSketchRow
from tuwen.catalogue.twins import find_same, write_sketch
from tuwen.database.engine import Database
from tuwen.pictures.resemblance import BAND_BITS, fields_of, sketch_of
from tuwen.pictures.thumbnails import make_thumbnail
from tuwen.settings import PROJECT_ROOT

CATALOGUE = PROJECT_ROOT / "demo" / "catalogue.jsonl"
SIDE, SAME_UNDER, WANTED = 128, 0.05, 0.95
SHOP, BATCH = "default", 2000


def _through(image: Image.Image, quality: int, image_format: str = "JPEG") -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, image_format, quality=quality)
    with Image.open(buffer) as saved:
        return saved.convert("RGB")


def saved_anew(image: Image.Image, chance: random.Random) -> Image.Image:
    return _through(image, chance.choice([40, 60, 80]), chance.choice(["JPEG", "WEBP"]))


def scaled(image: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.choice([0.3, 0.5, 0.75, 1.5])
    size = round(image.width * share), round(image.height * share * chance.uniform(0.98, 1.02))
    return _through(image.resize(size, Image.Resampling.LANCZOS), 85)


def cropped(image: Image.Image, chance: random.Random) -> Image.Image:
    """Up to a tenth of its width and of its height is gone, from one side or from both."""
    width, height = (round(side * chance.uniform(0.9, 1)) for side in image.size)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return _through(image.crop((left, top, left + width, top + height)), 85)


def marked(image: Image.Image, chance: random.Random) -> Image.Image:
    """A name across it, or in a corner, which lets 40 to 70 % through."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    colour = (*chance.choice([(255, 255, 255), (0, 0, 0), (200, 30, 30)]), round(255 * chance.uniform(0.3, 0.6)))
    text, is_across = chance.choice(["SHOP.EXAMPLE", "SAMPLE", "© 2026 Studio"]), chance.choice([True, False])
    font = ImageFont.load_default(size=image.width // (9 if is_across else 14))
    share = (
        (0.12, chance.uniform(0.35, 0.6)) if is_across else (chance.uniform(0.02, 0.45), chance.choice([0.03, 0.88]))
    )
    place = image.width * share[0], image.height * share[1]
    ImageDraw.Draw(layer).text(place, text, fill=colour, font=font)
    if is_across:
        layer = layer.rotate(chance.choice([0, 20, 30]))
    return _through(Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB"), 85)


KINDS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "saved anew": saved_anew,
    "scaled": scaled,
    "cropped": cropped,
    "marked": marked,
}


@dataclass
class Counts:
    copies: int = 0
    right: int = 0
    wrong: int = 0
    wrong_but_the_same: int = 0
    seconds: list[float] = field(default_factory=list)

    def f1(self, *, strict: bool) -> float:
        wrong = self.wrong - (0 if strict else self.wrong_but_the_same)
        return 2 * self.right / max(1, self.copies + self.right + wrong)

    def add(self, other: "Counts") -> None:
        for name in ("copies", "right", "wrong", "wrong_but_the_same"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("--tuning", action="store_true", help="the half on which thresholds were chosen")
    options.add_argument("--others", type=int, default=0)
    options.add_argument("--every", type=int, default=1, help="of these products one in so many is copied")
    chosen = options.parse_args()
    paths = [CATALOGUE.parent / item.image for item in read_catalogue(CATALOGUE)]
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor() as pool:
        originals = list(pool.map(original, paths, chunksize=20))
        copied = list(range(0 if chosen.tuning else 1, len(paths), 2 * chosen.every))
        database = Database(f"sqlite:///{folder}/duplicates.db")
        database.migrate()
        fill(database, [sketch for sketch, _ in originals], chosen.others)
        per_kind = {kind: Counts() for kind in KINDS}
        for number, sketches in zip(copied, pool.map(copies, copied, [paths[each] for each in copied]), strict=True):
            for kind, sketch in sketches.items():
                look(database, number, sketch, [pixels for _, pixels in originals], per_kind[kind])
        database.close()
    sys.exit(not report(per_kind, chosen.others + len(paths)))


def original(path: Path) -> tuple[bytes | None, NDArray[np.float32]]:
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    small = pixels.resize((SIDE, SIDE), Image.Resampling.BOX)
    return sketch_of(make_thumbnail(pixels)), np.asarray(small).astype(np.float32)


def copies(number: int, path: Path) -> dict[str, bytes | None]:
    chance = random.Random(number)
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    return {kind: sketch_of(make_thumbnail(copy(pixels, chance))) for kind, copy in KINDS.items()}


def fill(database: Database, sketches: list[bytes | None], others: int) -> None:
    """The catalogue's products have the ids from 1 on."""
    with database.write() as session:
        for number, sketch in enumerate(sketches):
            session.add(row := _product(number))
            session.flush()
            if sketch is not None:
                write_sketch(session, row, sketch)
    some = [sketch for sketch in sketches if sketch is not None]
    for start in range(0, others, BATCH):
        numbers = range(len(sketches) + start, len(sketches) + min(start + BATCH, others))
        with database.write() as session:
            session.add_all([_product(number) for number in numbers])
            session.flush()
            session.execute(sa.insert(ProductSketchRow), list(_strange_sketches(numbers, some)))


def _product(number: int) -> ProductRow:
    sha256 = f"{number:064x}"
    size = {"image_width": SIDE, "image_height": SIDE}
    return ProductRow(product_id=number + 1, title="A", image_path=sha256, image_sha256=sha256, **size)


def _strange_sketches(numbers: range, some: list[bytes]) -> Iterator[dict[str, object]]:
    for number in numbers:
        chance = random.Random(number)
        bands = {f"band_{band}": chance.getrandbits(BAND_BITS) for band in range(4)}
        sketch = chance.choice(some)
        yield {"product_id": number + 1, "shop_id": SHOP, "fields": fields_of(sketch), "sketch": sketch, **bands}


def look(
    database: Database, number: int, sketch: bytes | None, originals: list[NDArray[np.float32]], counts: Counts
) -> None:
    started = time.perf_counter()
    with database.read() as session:
        found = {each.product_id - 1 for each in find_same(session, SHOP, "none", sketch)}
    counts.seconds.append(time.perf_counter() - started)
    counts.copies += 1
    counts.right += number in found
    wrong = found - {number}
    counts.wrong += len(wrong)
    is_here = [each for each in wrong if each < len(originals)]
    counts.wrong_but_the_same += sum(apart(originals[number], originals[each]) < SAME_UNDER for each in is_here)


def apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """By how much of what is in them the two pictures differ."""
    plain = np.median(one, axis=(0, 1))
    return float(np.abs(one - other).sum() / max(1.0, (np.abs(one - plain).sum() + np.abs(other - plain).sum()) / 2))


def report(per_kind: dict[str, Counts], products: int) -> bool:
    """True where it is as good as it should be."""
    whole = Counts()
    for counts in per_kind.values():
        whole.add(counts)
    print(f"{'copies':12} {'number':>6} {'found':>6} {'wrong':>6} {'F1':>7} {'strict':>7}")
    for kind, counts in {**per_kind, "all": whole}.items():
        f1 = f"{counts.f1(strict=False):7.4f} {counts.f1(strict=True):7.4f}"
        print(f"{kind:12} {counts.copies:6} {counts.right:6} {counts.wrong:6} {f1}")
    median, slow = np.quantile(whole.seconds, [0.5, 0.95]) * 1000
    print(f"a look among {products} products: {median:.1f} ms, 95 % within {slow:.1f} ms")
    return whole.f1(strict=False) >= WANTED


if __name__ == "__main__":
    main()
