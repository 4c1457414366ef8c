"""`cli.py evaluate` and `compare-runs` on small files in each format: imported, asked of a service, and judged."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import ir_measures
import pytest
from PIL import Image

from clients.catalogue_import import CatalogueError
from evaluation.datasets import read_queries, write_catalogue
from evaluation.queries import Query
from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import assert_one_sentence, run_cli

COLOURS = ("red", "green", "blue", "white", "black", "orange")
SHADES = ("navy", "olive", "pink", "gold", "teal", "maroon")


def write_lines(file: Path, lines: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return file


def chinese_clip_files(folder: Path) -> Path:
    """Six pictures; a text of two of them, and one without any."""
    encoded = {70 + number: base64.b64encode(picture(colour)).decode() for number, colour in enumerate(COLOURS)}
    (folder / "valid_imgs.tsv").write_text("".join(f"{image}\t{data}\n" for image, data in encoded.items()))
    texts = [
        {"text_id": 1, "text": "红色托特包", "image_ids": [70, 71]},
        {"text_id": 2, "text": "无图", "image_ids": []},
    ]
    texts += [{"text_id": 3 + number, "text": f"商品{number}", "image_ids": [72 + number]} for number in range(4)]
    return write_lines(folder / "valid_texts.jsonl", texts)


def ecom_files(folder: Path) -> Path:
    """As C-MTEB's are called, but for the qrels, which are BEIR's."""
    titles = ["红色布艺沙发", "黑色皮质椅子", "白色玻璃餐桌", "双人木床"]
    write_lines(folder / "corpus.jsonl", [{"id": f"P{n}", "text": title} for n, title in enumerate(titles)])
    write_lines(folder / "queries.jsonl", [{"_id": f"Q{n}", "text": title} for n, title in enumerate(titles)])
    rows = ["query-id\tcorpus-id\tscore", "Q0\tP0\t1", "Q1\tP1\t1", "Q1\tP2\t0", "Q2\tP2\t1"]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_same_qrels_in_every_spelling(tmp_path: Path) -> None:
    folder = ecom_files(tmp_path / "ecom")
    expected = read_queries(folder, "")
    assert [(each.query_id, each.mode, each.text, each.relevant) for each in expected] == [
        ("Q0", "text_to_text", "红色布艺沙发", {"P0": 1}),
        ("Q1", "text_to_text", "黑色皮质椅子", {"P1": 1}),
        ("Q2", "text_to_text", "白色玻璃餐桌", {"P2": 1}),  # Q3 is judged by nobody
    ]
    (folder / "qrels" / "test.tsv").unlink()
    (folder / "qrels.tsv").write_text("Q0\t0\tP0\t1\nQ1\t0\tP1\t1\nQ1\t0\tP2\t0\nQ2\t0\tP2\t1\n")
    queries = (folder / "queries.jsonl").read_text().splitlines()
    (folder / "queries.jsonl").unlink()
    records = map(json.loads, queries)
    (folder / "queries.txt").write_text("".join(f"{each['_id']}\t{each['text']}\n" for each in records))
    assert read_queries(folder, "") == expected
    (folder / "qrels.tsv").unlink()
    rows = [{"qid": f"Q{n}", "pid": f"P{n}", "score": 1} for n in range(3)]
    write_lines(folder / "qrels.jsonl", rows)
    assert read_queries(folder, "") == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"mode": "text_to_text", "text": "a"}, "it needs relevant, or exactly one of"),
        ({"mode": "text_to_text", "text": "a", "image": "b", "sku": "1"}, "exactly one of: text, image"),
        ({"text": "a", "sku": "1"}, "'mode' is missing"),
        ({"mode": "text_to_text", "text": "a", "relevant": [{"sku": "1", "grade": 0}]}, "names no relevant product"),
        ({"mode": "text_to_text", "text": "a", "sku": "1", "categroy": "b"}, "it has categroy"),
        ([], "it is no object"),
    ],
)
def test_a_query_that_is_none_names_its_line(tmp_path: Path, line: Any, reason: str) -> None:
    good = {"mode": "text_to_text", "text": "a", "sku": "1"}
    file = write_lines(tmp_path / "queries.jsonl", [good, line])
    with pytest.raises(CatalogueError, match=f"Line 2 of the queries is none: .*{reason}"):
        read_queries(file, "")


def test_what_is_no_query_file_says_so(tmp_path: Path) -> None:
    twice = [{"id": "a", "mode": "text_to_text", "text": "a", "sku": "1"}] * 2
    with pytest.raises(CatalogueError, match="2 queries with the id a"):
        read_queries(write_lines(tmp_path / "twice.jsonl", twice), "")
    with pytest.raises(CatalogueError, match="has no queries"):
        read_queries(write_lines(tmp_path / "none.jsonl", []), "")
    with pytest.raises(CatalogueError, match=r"lacks its images beside it"):
        read_queries(write_lines(tmp_path / "muge_texts.jsonl", [{"text_id": 1}]), "")
    with pytest.raises(CatalogueError, match="has no qrels"):
        read_queries(tmp_path, "")
    texts = chinese_clip_files(tmp_path)
    write_lines(texts, [{"text_id": 1, "text": "a", "image_ids": [70]}, {"text_id": 2}])
    with pytest.raises(CatalogueError, match=r"Line 2 of .*valid_texts.jsonl is not understood: KeyError\('text'\)"):
        read_queries(texts, "")
    with pytest.raises(CatalogueError, match="takes this file as it is"):
        write_catalogue(texts, "image_to_text", tmp_path / "out.zip")


def test_a_data_set_is_imported_asked_and_judged(api: httpx.Client, tmp_path: Path) -> None:
    service = ("--api-url", str(api.base_url))
    (tmp_path / "clip").mkdir()
    texts, ecom = chinese_clip_files(tmp_path / "clip"), ecom_files(tmp_path / "ecom")
    for source, products in ((texts, 6), (ecom, 4)):
        archive = tmp_path / f"{products}.zip"
        assert f": {products} products" in run_cli("evaluate", str(source), "--write-catalogue", str(archive)).stdout
        imported = run_cli("import", str(archive), *service)
        assert imported.returncode == 0, imported.stdout + imported.stderr
    wait_until_indexed(api)

    run = evaluated(ecom, tmp_path / "ecom.json", *service)
    assert run["summary"][0]["measures"]["recall@1"]["value"] == 1.0  # each asks for its own title
    assert [each["hits"][0] for each in run["results"]] == ["P0", "P1", "P2"]

    run = evaluated(texts, tmp_path / "muge.json", *service)
    assert {each["mode"] for each in run["results"]} == {"text_to_image"}
    assert len(run["results"]) == 5
    assert set(run["results"][0]["hits"]) > {"70", "71"}  # pictures are products, by their numbers
    assert_as_the_library_says(run, read_queries(texts, ""))

    assert run_cli("import", str(texts), *service).returncode == 3  # the text without a picture is refused
    wait_until_indexed(api)
    run = evaluated(texts, tmp_path / "a3.json", *service, "--mode", "image_to_text", "--exact")
    assert [each["query_id"] for each in run["results"]] == ["70", "71", "72", "73", "74", "75"]
    assert_as_the_library_says(run, read_queries(texts, "image_to_text"))


def evaluated(source: Path, out: Path, *options: str) -> Any:
    result = run_cli("evaluate", str(source), "--out", str(out), *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def assert_as_the_library_says(run: Any, queries: list[Query]) -> None:
    qrels = {each.query_id: {str(key): grade for key, grade in each.relevant.items()} for each in queries}
    answers = {each["query_id"]: {sku: -rank for rank, sku in enumerate(each["hits"])} for each in run["results"]}
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@10", "RR@10", "Success@5")]
    theirs = ir_measures.calc_aggregate(measures, qrels, answers)
    [summary, *_] = run["summary"]
    for name, measure in zip(("ndcg@10", "mrr@10", "recall@5"), measures, strict=True):
        assert summary["measures"][name]["value"] == pytest.approx(theirs[measure], abs=1e-9), name


def test_two_runs_are_compared_and_drawn(api: httpx.Client, tmp_path: Path) -> None:
    service = ("--api-url", str(api.base_url))
    ids = [create_product(api, f"{number}黄灯", picture(colour))["product_id"] for number, colour in enumerate(SHADES)]
    wait_until_indexed(api)
    lines = [
        {
            "text": f"{number}黄灯",
            "mode": "text_to_text",
            "product_id": product_id,
            "category": "灯" if number else "x",
        }
        for number, product_id in enumerate(ids)
    ]
    (tmp_path / "pink.png").write_bytes(picture(SHADES[2]))
    lines.append({"image": "pink.png", "mode": "image_to_image", "relevant": [ids[2]]})
    queries = write_lines(tmp_path / "queries.jsonl", lines)
    good = evaluated(queries, tmp_path / "good.json", *service, "--chart", str(tmp_path / "good.png"))
    assert {(row["mode"], row["category"], row["queries"]) for row in good["summary"]} == {
        ("text_to_text", "", 6), ("text_to_text", "x", 1), ("text_to_text", "灯", 5), ("image_to_image", "", 1),
    }  # fmt: skip
    assert {row["measures"]["recall@1"]["value"] for row in good["summary"]} == {1.0}

    nothing = '{"filters": {"category": ["不存在"]}}'
    bad = evaluated(queries, tmp_path / "bad.json", *service, "--search", nothing)
    assert {row["measures"]["recall@10"]["value"] for row in bad["summary"]} == {0.0}
    files = [str(tmp_path / f"{name}.{ending}") for name, ending in (("good", "json"), ("bad", "json"), ("ab", "json"))]
    result = run_cli("compare-runs", *files[:2], "--out", files[2], "--chart", str(tmp_path / "ab.png"))
    assert result.returncode == 0, result.stdout + result.stderr
    [first] = [each for each in json.loads(Path(files[2]).read_text()) if each["category"] == ""][:1]
    assert (first["before"], first["after"], first["queries"]) == (1.0, 0.0, 7)
    assert first["p_value"] < 0.05
    for name in ("good.png", "ab.png"):
        with Image.open(tmp_path / name) as chart:
            assert chart.format == "PNG"
            assert len(set(chart.convert("RGB").resize((200, 200)).get_flattened_data())) > 20  # something is drawn

    assert_one_sentence(run_cli("compare-runs", files[0], str(queries)), "is no run that 'cli.py evaluate --out' wrote")
    refused = write_lines(tmp_path / "refused.jsonl", [{"id": "q", "text": "a", "mode": "no_such", "sku": "1"}])
    assert_one_sentence(run_cli("evaluate", str(refused), *service), "The query q was refused", "mode")
