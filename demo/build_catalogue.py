"""Rebuilds the demo catalogue from Debian's `sweethome3d-furniture` package, in one command.

Owns `demo/images`, `demo/catalogue.jsonl`, `demo/ATTRIBUTION.md` and `evaluation/views`; the hand-written inputs are
`demo/titles.csv` and `demo/pictures.csv`. Running it again renders and writes only what is missing or has changed.
"""

import argparse
import csv
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from demo.attribution import attribution_page
from demo.furniture_package import LIBRARIES, LIBRARY_DIR, PACKAGE, Library, Product, all_products, open_libraries
from demo.render import MAIN_VIEWS, MARGIN, QUERY_VIEWS, TRAIN_VIEWS, View
from demo.render_products import Pose, render_products

DEMO = Path(__file__).resolve().parent
REPOSITORY = DEMO.parent
VIEW_SETS = {"main": MAIN_VIEWS, "query": QUERY_VIEWS, "train": TRAIN_VIEWS}
IMAGE_PIXELS = 512
QUERY_PIXELS = 320
WEBP_QUALITY = 86
QUERY_WEBP_QUALITY = 82
TITLE_MAX = 500
OPTIONAL_COLUMNS = ("colour", "material", "style")


class BuildError(Exception):
    """Says in one line what is wrong and what to do about it."""


@dataclass(frozen=True)
class Picture:
    """How a product's picture is made: rendered from `pose`, or the package's own icon where that is better."""

    from_icon: bool = False
    pose: Pose = field(default_factory=Pose)


def main() -> None:
    arguments = parse_arguments()
    try:
        build(arguments)
    except BuildError as error:
        sys.exit(f"error: {error}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=REPOSITORY / ".work" / "demo", help="models and renders")
    parser.add_argument("--titles", type=Path, default=DEMO / "titles.csv", help="sku,title,title_en,category")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--render-only",
        nargs="+",
        choices=VIEW_SETS,
        default=[],
        metavar="SET",
        help="render these sets (main, query, train) and stop; train is what the demo models learn from",
    )
    return parser.parse_args()


def build(arguments: argparse.Namespace) -> None:
    check_tools()
    work_dir: Path = arguments.work_dir
    root, version = find_package(work_dir)
    libraries = open_libraries(root)
    products = sorted(all_products(libraries), key=lambda product: product.sku)
    say(f"{PACKAGE} {version}: {len(products)} products")
    extract_models(libraries, work_dir / "extracted")
    pictures = read_pictures(DEMO / "pictures.csv", products)
    for name in arguments.render_only or ("main", "query"):
        render_set(name, products, pictures, work_dir, arguments.processes)
    if arguments.render_only:
        return
    titles = read_titles(arguments.titles, products)
    write_images(products, pictures, libraries, work_dir / "renders")
    write_query_views(products, work_dir / "renders")
    write_text(DEMO / "catalogue.jsonl", "".join(catalogue_line(product, titles[product.sku]) for product in products))
    write_text(DEMO / "ATTRIBUTION.md", attribution_page(products, version))
    copyright_file = root / "usr/share/doc" / PACKAGE / "copyright"
    write_text(DEMO / "package-copyright.txt", copyright_file.read_text(encoding="utf-8"))
    report(pictures, products)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check_tools() -> None:
    if importlib.util.find_spec("vtkmodules") is None:
        raise BuildError(
            "VTK draws the pictures and is not installed: pip install vtk==9.7.2 "
            "(and for its software renderer: apt-get install libegl1 libgl1-mesa-dri)"
        )


# The package


def find_package(work_dir: Path) -> tuple[Path, str]:
    """The folder that the package's files are below, and its version; downloads the .deb if it is not installed."""
    if all((Path("/") / LIBRARY_DIR / f"{name}.sh3f").exists() for name in LIBRARIES):
        return Path("/"), run(["dpkg-query", "--show", "--showformat=${Version}", PACKAGE])
    folder = work_dir / "package"
    folder.mkdir(parents=True, exist_ok=True)
    archives = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if not archives:
        say(f"downloading {PACKAGE}")
        run(["apt-get", "download", PACKAGE], cwd=folder)
        archives = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    run(["dpkg-deb", "--extract", str(archives[-1]), str(folder / "root")])
    return folder / "root", run(["dpkg-deb", "--field", str(archives[-1]), "Version"])


def run(command: list[str], cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise BuildError(f"{command[0]} is missing: run this on Debian or Ubuntu, or in a debian:bookworm container")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = "; apt-get update first?" if command[0] == "apt-get" else ""
        raise BuildError(f"`{' '.join(command)}` failed: {done.stderr.strip()}{hint}")
    return done.stdout.strip()


def extract_models(libraries: list[Library], folder: Path) -> None:
    for library in libraries:
        target = folder / library.name
        if not target.exists():
            say(f"extracting {library.name}")
            part = target.with_suffix(".part")
            library.extract(part)
            part.rename(target)


# The hand-written inputs


def read_pictures(path: Path, products: list[Product]) -> dict[str, Picture]:
    pictures = {product.sku: Picture() for product in products}
    for row in read_csv(path, ("sku", "picture", "turn", "rise", "ground")):
        if row["sku"] not in pictures:
            raise BuildError(f"{path.name}: unknown sku {row['sku']}")
        if row["picture"] not in ("render", "icon"):
            raise BuildError(f"{path.name}: picture of {row['sku']} must be render or icon")
        pose = Pose(turn=float(row["turn"] or 0), rise=float(row["rise"] or 0), ground=float(row["ground"] or 1))
        pictures[row["sku"]] = Picture(row["picture"] == "icon", pose)
    return pictures


def read_titles(path: Path, products: list[Product]) -> dict[str, dict[str, str]]:
    rows = read_csv(path, ("sku", "title", "title_en", "category"))
    titles = {row["sku"]: row for row in rows}
    problems = [f"{sku}: twice" for sku in repeated(row["sku"] for row in rows)]
    skus = {product.sku for product in products}
    problems += [f"{sku}: no title" for sku in sorted(skus - titles.keys())]
    problems += [f"{sku}: unknown" for sku in sorted(titles.keys() - skus)]
    for sku, row in titles.items():
        if not (row["title"] and row["title_en"] and row["category"]):
            problems.append(f"{sku}: an empty field")
        if len(row["title"]) > TITLE_MAX:
            problems.append(f"{sku}: title over {TITLE_MAX} characters")
        if not has_chinese(row["title"]):
            problems.append(f"{sku}: title is not Chinese")
    if problems:
        raise BuildError(f"{path.name}: {len(problems)} problems\n  " + "\n  ".join(problems[:40]))
    report_twins(titles)
    return titles


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.exists():
        raise BuildError(f"{path} is missing")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise BuildError(f"{path.name} lacks the columns {', '.join(sorted(missing))}")
        return [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]


def repeated(values: Iterable[str]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    for value in values:
        seen[value] += 1
    return [value for value, count in seen.items() if count > 1]


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def report_twins(titles: dict[str, dict[str, str]]) -> None:
    """Equal titles make searches by text ambiguous; they are right only where the products look the same."""
    twins: dict[str, list[str]] = defaultdict(list)
    for sku, row in titles.items():
        twins[row["title"]].append(sku)
    for title, skus in twins.items():
        if len(skus) > 1:
            say(f"  same title: {title}: {', '.join(skus)}")


# The pictures


def render_set(
    name: str, products: list[Product], pictures: dict[str, Picture], work_dir: Path, processes: int
) -> None:
    say(f"rendering: {name}")
    # Products with an icon are rendered too: the query and training views of all products are renders.
    work = [(product, pictures[product.sku].pose, VIEW_SETS[name]) for product in products]
    failures = render_products(work, work_dir / "extracted", work_dir / "renders", processes=processes)
    if failures:
        lines = "\n  ".join(f"{sku}: {reason}" for sku, reason in sorted(failures.items()))
        raise BuildError(f"{len(failures)} products could not be rendered\n  {lines}")


def write_images(
    products: list[Product], pictures: dict[str, Picture], libraries: list[Library], renders: Path
) -> None:
    by_name = {library.name: library for library in libraries}
    folder = DEMO / "images"
    for product in products:
        if pictures[product.sku].from_icon:
            image = icon_picture(by_name[product.library].read(product.icon))
        else:
            image = opened(renders, product, MAIN_VIEWS[0])
        write_webp(folder / f"{product.sku}.webp", image, WEBP_QUALITY)
    remove_strangers(folder, {f"{product.sku}.webp" for product in products})


def write_query_views(products: list[Product], renders: Path) -> None:
    folder = REPOSITORY / "evaluation" / "views"
    for product in products:
        for number, view in enumerate(QUERY_VIEWS, start=1):
            image = opened(renders, product, view)
            image = image.resize((QUERY_PIXELS, QUERY_PIXELS), Image.Resampling.LANCZOS)
            write_webp(folder / f"{product.sku}_{number}.webp", image, QUERY_WEBP_QUALITY)
    numbers = range(1, len(QUERY_VIEWS) + 1)
    remove_strangers(folder, {f"{product.sku}_{number}.webp" for product in products for number in numbers})


def opened(renders: Path, product: Product, view: View) -> Image.Image:
    with Image.open(renders / product.sku / view.file_name) as image:
        return image.convert("RGB")


def icon_picture(data: bytes) -> Image.Image:
    """The icon's object on a white square with the margin of the renders."""
    with Image.open(io.BytesIO(data)) as file:
        icon = file.convert("RGBA")
    icon = icon.crop(icon.getbbox(alpha_only=True))
    scale = IMAGE_PIXELS * (1 - 2 * MARGIN) / max(icon.size)
    icon = icon.resize((round(icon.width * scale), round(icon.height * scale)), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (IMAGE_PIXELS, IMAGE_PIXELS), "white")
    picture.paste(icon, ((IMAGE_PIXELS - icon.width) // 2, (IMAGE_PIXELS - icon.height) // 2), icon)
    return picture


def write_webp(path: Path, image: Image.Image, quality: int) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=5)
    write_bytes(path, buffer.getvalue())


def remove_strangers(folder: Path, expected: set[str]) -> None:
    for path in folder.glob("*.webp"):
        if path.name not in expected:
            say(f"  removing {path.name}: no such product")
            path.unlink()


# The catalogue


def catalogue_line(product: Product, title: dict[str, str]) -> str:
    # As attributes, title, author and licence stay with the product wherever it is loaded.
    attributes: dict[str, Any] = {
        "title_en": title["title_en"],
        "width_cm": product.width_cm,
        "depth_cm": product.depth_cm,
        "height_cm": product.height_cm,
        "author": product.creator,
        "licence": product.licence,
    }
    attributes |= {column: title[column] for column in OPTIONAL_COLUMNS if title.get(column)}
    record = {
        "sku": product.sku,
        "title": title["title"],
        "category": title["category"],
        "attributes": attributes,
        "image": f"images/{product.sku}.webp",
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def report(pictures: dict[str, Picture], products: list[Product]) -> None:
    icons = sum(picture.from_icon for picture in pictures.values())
    say(f"{len(products)} products: {len(products) - icons} renders, {icons} icons")
    for folder in (DEMO / "images", REPOSITORY / "evaluation" / "views"):
        files = list(folder.glob("*.webp"))
        size = sum(path.stat().st_size for path in files)
        say(f"{folder.relative_to(REPOSITORY)}: {len(files)} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
