"""What stands twice in one file is said, however far apart, and again after a kill; nothing is kept out for it."""

import io
import time
from pathlib import Path

import httpx
from PIL import Image

from data_models import ProductChanges
from tests.importing.files import counts_of, import_file, json_lines_of, warnings_of, zip_of
from tests.pictures.files import encoded
from tuwen.importing.doubles import Doubles, Seen
from tuwen.importing.rows import ImportRow
from tuwen.pictures.checks import check_image
from tuwen.pictures.likeness import first_alike, likeness_of
from tuwen.settings import PROJECT_ROOT, Settings

DEMO = sorted((PROJECT_ROOT / "demo" / "images").glob("*.webp"))
SETTINGS = Settings(_env_file=None)


def row(line: int, title: str, category: str | None = None) -> ImportRow:
    return ImportRow(line, ProductChanges(title=title, category=category), {}, None)


def likeness(data: bytes) -> bytes | None:
    return likeness_of(check_image(data, SETTINGS).thumbnail)


def test_a_likeness_stays_through_scaling_and_compression_and_tells_others_apart() -> None:
    some = [path.read_bytes() for path in DEMO[::20]]
    known = [likeness(data) or b"" for data in some]
    for number, data in enumerate(some):
        with Image.open(io.BytesIO(data)) as image:
            small = encoded(image.convert("RGB").resize((300, 300)), "JPEG", quality=70)
        assert first_alike(likeness(small) or b"", known) == number, number
    assert likeness(encoded(Image.new("RGB", (90, 90), "white"), "PNG")) is None


def test_doubles_of_a_file_are_listed_and_go_in(api: httpx.Client) -> None:
    whole = DEMO[40].read_bytes()
    with Image.open(DEMO[40]) as image:
        small = encoded(image.convert("RGB").resize((320, 320)), "JPEG", quality=80)
    others = [path.read_bytes() for path in DEMO[100:700:5]]  # more than a page
    pictures = [whole, *others, whole, small]
    rows = [{"sku": f"DO-{n}", "title": f"商品 {n}", "image": f"{n}.webp"} for n in range(len(pictures))]
    rows[-1] |= {"title": "商品  ０"}
    archive = zip_of({"a.jsonl": json_lines_of(*rows), **{f"{n}.webp": data for n, data in enumerate(pictures)}})
    job = import_file(api, archive)
    assert counts_of(job) == (len(rows), 0, 0, 0)
    last = len(rows)
    said = [(line, field, reason) for line, _, field, reason in warnings_of(api, job) if int(line) >= last - 1]
    assert said == [
        (str(last - 1), "image", "is the very picture of line 1"),
        (str(last), "title", "is that of line 1, and so is its category"),
        (str(last), "image", "looks like the picture of line 1"),
    ]
    assert "与第 1 行是同一张图片" in api.get(job["errors_url"], headers={"Accept-Language": "zh"}).text


def test_what_was_seen_survives_and_a_row_is_not_its_own_double(tmp_path: Path) -> None:
    file = tmp_path / "f"
    first = bytes(range(200))
    alike = first[:7] + b"\0" + bytes(number + 5 for number in first[8:])
    seen = {1: Seen("ab" * 32, first), 2: Seen("cd" * 32, alike), 3: Seen("ab" * 32, None)}
    rows = [row(1, "红色沙发", "沙发"), row(2, "紅色沙發", "沙发"), row(3, "红色沙发", "椅"), row(4, "红色沙发")]
    for _ in range(2):  # the second time as after a kill
        doubles = Doubles(file)
        found = [(each.line, each.field) for each in doubles.find(rows, seen)]
        assert found == [(2, "title"), (2, "image"), (3, "image")]
        doubles.close()
    file.with_name("f.seen").write_bytes(b"cut by a power loss")
    broken = Doubles(file)
    assert broken.find(rows, seen) == []
    broken.close()


def test_twenty_thousand_rows_take_seconds(tmp_path: Path) -> None:
    doubles, started = Doubles(tmp_path / "f"), time.process_time()
    for start in range(1, 20_001, 100):
        rows = [row(line, f"商品 {line}") for line in range(start, start + 100)]
        seen = {
            each.line: Seen(f"{each.line:064x}"[::-1], (each.line * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") * 25)
            for each in rows
        }
        doubles.find(rows, seen)
    assert time.process_time() - started < 10
    doubles.close()
