"""The demo command as a person runs it: start, load, stop with Ctrl-C, start again; and the errors met on the way."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from clients.catalogue_import import CatalogueError, load_catalogue, open_client, read_catalogue, wait_until_indexed
from clients.reindex import read_queries
from evaluation.catalogue_queries import queries_of
from evaluation.measures import summarise
from evaluation.run import run_queries
from tests.conftest import picture
from tests.launch import run_to_its_end
from tests.processes import ROOT, answers, environment, free_port, listening_addresses, running, stop, wait_until

COLORS = ("red", "green", "blue", "black", "white")


@pytest.fixture
def small_catalogue(tmp_path: Path) -> Path:
    return write_catalogue(tmp_path)


def write_catalogue(folder: Path) -> Path:
    lines = []
    for number, color in enumerate(COLORS):
        (folder / f"{color}.png").write_bytes(picture(color))
        line = {"sku": f"S-{number}", "title": f"沙发 {color}", "image": f"{color}.png", "attributes": {"颜色": color}}
        lines.append(json.dumps(line, ensure_ascii=False))
    file = folder / "catalogue.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@contextmanager
def demo(catalogue: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "cli.py", "demo", "--catalogue", str(catalogue)],
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        stop(process)  # type: ignore[arg-type]  # text or bytes is all the same to it
        if process.stdout is not None:
            process.stdout.close()


def test_demo_starts_loads_once_and_stops_on_ctrl_c(
    small_catalogue: Path, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    api, web = free_port(), free_port()
    settings = {**tiny_models, "DATA_DIR": str(tmp_path / "data"), "API_PORT": str(api), "WEB_PORT": str(web)}
    settings["API_HOST"] = "0.0.0.0"  # opens the API, which asks others for a key, and not the pages, which ask nobody
    for loaded in ("5 products loaded, 0 were there", "0 products loaded, 5 were there"):
        with demo(small_catalogue, settings) as process:
            assert process.stdout is not None
            output = ""
            while "Ctrl-C stops both." not in output:
                line = process.stdout.readline()
                assert line, f"it ended early: {output}"
                output += line
            assert loaded in output
            assert f"http://127.0.0.1:{web}" in output
            assert answers(f"http://127.0.0.1:{web}/_stcore/health")
            assert (listening_addresses(api), listening_addresses(web)) == ({"0.0.0.0"}, {"127.0.0.1"})
            products = httpx.get(f"http://127.0.0.1:{api}/product/list?index_status=indexed", trust_env=False).json()
            assert products["total"] == len(COLORS)
            query = {"mode": "text_to_text", "text": "沙发"}
            found = httpx.post(f"http://127.0.0.1:{api}/search", json=query, trust_env=False).json()
            assert len(found["hits"]) == len(COLORS)
            process.send_signal(signal.SIGINT)
            assert "Stopped." in process.stdout.read()
            assert process.wait(30) == 0
        for port in (api, web):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_demo_goes_on_without_what_needs_a_key(
    small_catalogue: Path, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    """As when the first key is made while it loads."""
    settings = {**tiny_models, "DATA_DIR": str(tmp_path / "data"), "API_PORT": str(free_port())}
    settings["WEB_PORT"] = str(free_port())
    made = run_cli("keys", "create", "--name", "first", "--scope", "search", "--limit", "search=9/second", **settings)
    assert made.returncode == 0, made.stderr
    with demo(small_catalogue, settings) as process:
        assert process.stdout is not None
        output = ""
        while "Ctrl-C stops both." not in output:
            line = process.stdout.readline()
            assert line, f"it ended early: {output}"
            output += line
        assert "not all loaded: GET /product/list: 401 An API key is needed here" in output
        assert "API_KEY" in output
        by_key = {"X-API-Key": made.stdout.strip()}
        products = httpx.get(f"http://127.0.0.1:{settings['API_PORT']}/product/list", headers=by_key, trust_env=False)
        assert (products.status_code, products.json()["total"]) == (200, 0)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.parametrize("setting", ["API_PORT", "WEB_PORT"])
def test_a_taken_port_is_one_clear_line(tiny_models: dict[str, str], tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"API_PORT": str(free_port()), "WEB_PORT": str(free_port()), setting: str(port)}
        result = run_cli("demo", DATA_DIR=str(tmp_path), **tiny_models, **settings)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines() == [
        f"Port {port} is taken. Stop what listens there, or set {setting} to a free port."
    ]


def test_a_folder_that_cannot_be_written_ends_every_command_in_one_sentence(tmp_path: Path) -> None:
    not_there, file = tmp_path / "not there", tmp_path / "file"
    file.touch()
    for command in ("demo", "reconcile", "migrate"):
        result = run_cli(command, DATA_DIR=str(file / "data"), API_PORT=str(free_port()), WEB_PORT=str(free_port()))
        assert result.returncode, command
        assert "DATA_DIR" in result.stdout + result.stderr, command
        assert "Traceback" not in result.stdout + result.stderr, command
    result = run_cli("retry-failed", DATA_DIR=str(not_there))
    assert "There is no installation in DATA_DIR" in result.stdout + result.stderr
    assert not not_there.exists()


def test_a_model_that_cannot_be_had_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    ports = {"API_PORT": str(free_port()), "WEB_PORT": str(free_port())}
    result = run_cli("demo", DATA_DIR=str(tmp_path / "data"), CLIP_MODEL="/nowhere", **ports)
    assert result.returncode == 1
    assert "CLIP_MODEL=/nowhere: there is no such folder" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_catalogue_loads_once_and_is_evaluated(api: httpx.Client, small_catalogue: Path, tmp_path: Path) -> None:
    items = read_catalogue(small_catalogue)
    with open_client(str(api.base_url)) as client:
        assert load_catalogue(client, items, lambda _: None).created == len(items)
        assert load_catalogue(client, items, lambda _: None).present == len(items)
        assert wait_until_indexed(client, lambda _: None) == len(items)
        (tmp_path / "S-0_1.png").write_bytes(picture("red"))
        (tmp_path / "S-1_1.png").write_bytes(picture("black"))  # another product's picture: found, but never first
        found = summarise(run_queries(client, queries_of(items, items, tmp_path), {}, lambda _: None).results)
    rows = {row.category: row for row in found}
    recalls = {name: (row.measures["recall@1"].value, row.measures["recall@10"].value) for name, row in rows.items()}
    assert (recalls["A1 own picture"][0], rows["A1 own picture"].queries) == (1.0, 5)
    assert recalls["A2 exact title"][0] == 1.0
    assert recalls["A1 further view"] == (0.5, 1.0)


def test_a_broken_catalogue_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.jsonl"
    file.write_text('{"sku": "1", "title": "a", "image": "a.png"}\n{"sku": "2"}\n')
    with pytest.raises(CatalogueError, match="Line 2"):
        read_catalogue(file)
    with pytest.raises(CatalogueError, match="can't be read"):
        read_catalogue(tmp_path / "none.jsonl")


def test_a_separator_inside_a_title_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "sofa.png").write_bytes(picture())
    titles = [f"红色{separator}沙发" for separator in "\u2028\u2029\x85"]
    lines = [json.dumps({"sku": title, "title": title, "image": "sofa.png"}, ensure_ascii=False) for title in titles]
    queries = [{"text": title, "mode": "text_to_text", "sku": "1"} for title in titles]
    for end in ("\n", "\r\n"):
        (tmp_path / "catalogue.jsonl").write_bytes(end.join(lines).encode())
        assert [item.title for item in read_catalogue(tmp_path / "catalogue.jsonl")] == titles
        of_queries = [json.dumps(query, ensure_ascii=False) for query in queries]
        (tmp_path / "queries.jsonl").write_bytes(end.join(of_queries).encode())
        assert read_queries(tmp_path / "queries.jsonl") == queries


def test_queries_that_cannot_be_read_name_their_line(tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text('{"text": "sofa"}\n{"text": "红色沙发"}\n', encoding="gbk")
    result = run_cli("reindex", "--clip-model", "a", "--text-model", "b", "--queries", str(file))
    assert_one_sentence(result, "is not UTF-8 (line 2, byte ", "iconv -f GBK -t UTF-8")
    file.write_text('{"text": "sofa"}\n\n{"text": \n')
    with pytest.raises(CatalogueError, match="Line 3 of the queries"):
        read_queries(file)
    with pytest.raises(CatalogueError, match="can't be read"):
        read_queries(tmp_path / "none.jsonl")


def test_a_catalogue_that_is_not_utf_8_says_so_and_a_mark_in_front_is_no_harm(tmp_path: Path) -> None:
    file = write_catalogue(tmp_path)
    items, text = read_catalogue(file), file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8-sig")
    assert read_catalogue(file) == items
    file.write_text(text, encoding="gbk")
    result = run_cli("evaluate", "--catalogue", str(file), "--views", str(tmp_path))
    assert_one_sentence(result, "is not UTF-8 (line 1, byte ", "save it as UTF-8")


def test_without_a_service_import_and_evaluate_say_how_to_start_or_name_one(
    small_catalogue: Path, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    evaluate = ("evaluate", "--catalogue", str(small_catalogue), "--views", str(tmp_path))
    for command in (("import", str(small_catalogue)), evaluate):
        result = run_cli(*command, API_URL=address)
        assert_one_sentence(result, f"No service answers at {address}", "fastapi run main.py", "API_URL")
    assert_one_sentence(run_cli(*evaluate, "--api-url", "127.0.0.1:9"), "No service answers at 127.0.0.1:9", "http://")
    assert_one_sentence(run_cli(*evaluate, "--api-url", "http://a:b"), "'http://a:b' is no address")
    assert_one_sentence(run_cli(*evaluate, "--api-key", "密钥"), "That is no API key")
    assert_one_sentence(run_cli(*evaluate, API_KEY="密钥"), "That is no API key")


def test_another_server_is_not_taken_for_the_service(small_catalogue: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--directory", str(tmp_path), "--bind", "127.0.0.1"]
    (tmp_path / "product").mkdir()
    (tmp_path / "product" / "list").write_text("<html>", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    with running(command, tmp_path / "log", env=environment(), ready=lambda: answers(url)):
        assert_one_sentence(run_cli("import", str(small_catalogue), API_URL=url), "is not this service's API")


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """On stderr, holding all of these, and nothing else beside it."""
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result.stderr
    for part in parts:
        assert part in result.stderr


def run_cli(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run_to_its_end(["cli.py", *arguments], environment(**settings), timeout_s=120)


def test_migrate_makes_the_schema(tmp_path: Path) -> None:
    dsn = f"sqlite:///{tmp_path / 'new.db'}"
    for _ in range(2):
        assert run_cli("migrate", DATABASE_URL=dsn).returncode == 0
    wait_until((tmp_path / "new.db").exists, what="the database file")
