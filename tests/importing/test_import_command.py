"""`cli.py import`: the file and the pictures beside it go up, the errors come down, and it says how all that ended."""

import csv
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import httpx
import pytest

from clients.catalogue_import import open_client
from clients.file_import import begin_import
from tests.conftest import picture
from tests.demo.test_demo_command import assert_one_sentence, run_cli
from tests.importing.files import counts_of, csv_of, json_lines_of, wait_for_job, xlsx_of
from tests.processes import ROOT, environment, free_port, running_api
from web.client import ApiClient, ApiError


def write_shop(folder: Path, prefix: str) -> Path:
    """A spreadsheet of a Chinese Windows beside its pictures, with one bad row."""
    (folder / "图片").mkdir()
    for number in range(3):
        (folder / "图片" / f"{number}.png").write_bytes(picture((number, 50, 50)))
    rows = [[f"{prefix}-{number}", f"商品 {number}", rf"图片\{number}.png"] for number in range(4)]
    file = folder / "商品.csv"
    file.write_bytes(csv_of(["货号", "标题", "图片"], *rows, encoding="gb18030"))
    return file


def test_a_spreadsheet_and_the_pictures_beside_it_are_imported(api: httpx.Client, tmp_path: Path) -> None:
    file = write_shop(tmp_path, "CM")
    errors = tmp_path / "商品.csv.errors.csv"
    result = run_cli("import", str(file), API_URL=str(api.base_url))
    assert result.returncode == 3, result.stderr
    assert "3 created, 0 updated, 0 unchanged, 1 failed, of 4 rows." in result.stdout
    assert str(errors) in result.stdout
    with errors.open(encoding="utf-8-sig", newline="") as opened:
        [row] = csv.DictReader(opened)
    assert (row["line"], row["sku"], row["field"]) == ("5", "CM-3", "image")
    (tmp_path / "图片" / "3.png").write_bytes(picture((3, 50, 50)))
    result = run_cli("import", str(file), "--mode", "upsert", API_URL=str(api.base_url))
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 created, 0 updated, 3 unchanged, 0 failed, of 4 rows." in result.stdout
    assert not errors.exists()


def test_each_kind_of_file_goes_up_with_its_pictures(api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("green"))
    rows = json_lines_of(
        {"sku": "KI-1", "title": "一", "image": "a.png"}, {"sku": "KI-2", "title": "二", "image": "./a.png"}
    )
    (tmp_path / "lines").write_bytes(rows)
    (tmp_path / ".book.xlsx").write_bytes(xlsx_of(["sku", "title", "image"], ["KI-3", "三", str(tmp_path / "a.png")]))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("rows.csv", csv_of(["sku", "title", "image"], ["KI-4", "四", "a.png"]))
        archive.write(tmp_path / "a.png", "a.png")
    (tmp_path / "prices.csv").write_bytes(csv_of(["sku", "price"], ["KI-1", "5"]))
    with open_client(str(api.base_url)) as client:
        for name, mode, counts in (
            ("lines", "create", (2, 0, 0, 0)),
            (".book.xlsx", "create", (1, 0, 0, 0)),
            ("a.zip", "create", (1, 0, 0, 0)),
            ("prices.csv", "upsert", (0, 1, 0, 0)),
        ):
            job = begin_import(client, tmp_path / name, mode, lambda _: None)
            assert counts_of(wait_for_job(client, job)) == counts, name


def test_what_cannot_be_imported_is_said_in_one_sentence(api: httpx.Client, tmp_path: Path) -> None:
    file, url = tmp_path / "a.csv", str(api.base_url)
    file.write_bytes(b"a,b\n1,2\n")
    assert_one_sentence(run_cli("import", str(file), API_URL=url), "a.csv must name its columns in the first line")
    assert_one_sentence(run_cli("import", str(tmp_path / "none.csv"), API_URL=url), "none.csv can't be sent")
    assert_one_sentence(run_cli("import", "--follow", "987654", API_URL=url), "There is no import job 987654")
    address = f"http://127.0.0.1:{free_port()}"
    assert_one_sentence(run_cli("import", str(file), API_URL=address), f"No service answers at {address}")
    assert run_cli("import", API_URL=url).returncode == 2


def test_ctrl_c_leaves_the_job_and_says_how_to_follow_and_cancel_it(api: httpx.Client, tmp_path: Path) -> None:
    lines = b"".join(b'{"sku": "CC-%d", "title": "x"}\n' % number for number in range(200_000))
    (tmp_path / "many.jsonl").write_bytes(lines)
    command = [sys.executable, "cli.py", "import", str(tmp_path / "many.jsonl")]
    env = environment(API_URL=str(api.base_url))
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "Job " not in said:
            said += process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    job_id = said.split("Job ")[1].split(":")[0]
    assert f"'cli.py import --follow {job_id}' follows it" in rest
    cancelled = run_cli("import", "--cancel", job_id, API_URL=str(api.base_url))
    assert (cancelled.returncode, cancelled.stdout) == (0, f"Job {job_id} is cancelled; what is in stays in.\n")
    followed = run_cli("import", "--follow", job_id, API_URL=str(api.base_url))
    assert (followed.returncode, f"Job {job_id} cancelled" in followed.stderr) == (1, True)
    (ROOT / "many.jsonl.errors.csv").unlink(missing_ok=True)


def test_clients_wait_as_long_as_a_limit_asks_them_to(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    file, answered = write_shop(tmp_path, "RL"), Counter[tuple[str, int]]()
    limits = {"RATE_LIMITS": "search=2/second, write=1/10 seconds, admin=1/day"}

    def count(response: httpx.Response) -> None:
        answered[response.request.method, response.status_code] += 1

    with running_api(tmp_path / "data", **tiny_models, **limits) as url:
        result = run_cli("import", str(file), API_URL=url)
        assert (result.returncode, result.stderr) == (3, "")
        summary, errors = (result.stdout.index(said) for said in ("3 created, 0 updated", ".errors.csv has the rows"))
        assert summary < errors < result.stdout.rindex("Indexed")  # both before the wait for the index
        with open_client(url) as client:
            client.event_hooks = {"response": [count]}
            for _ in range(3):
                job = begin_import(client, file, "upsert", lambda _: None)
            assert counts_of(wait_for_job(client, job)) == (0, 0, 3, 1)
        assert answered["POST", 429] >= 1
        assert answered["POST", 202] == 3
        with ApiClient(url, "zh") as pages:
            assert {pages.list_products().total for _ in range(6)} == {3}
            pages.retry_failed()
            with pytest.raises(ApiError) as refused:  # tomorrow is too far away
                pages.retry_failed()
            assert (refused.value.status, refused.value.code) == (429, "rate_limited")


def test_all_rows_are_looked_through_before_the_form_begins(tmp_path: Path) -> None:
    """In the midst of one, the service takes half a minute of silence for the end of its sender."""
    file = tmp_path / "a.csv"
    file.write_bytes(csv_of(["sku", "title", "image"], ["A", "一", "a.png"], ["B", "二", "late.png"]))
    (tmp_path / "a.png").write_bytes(picture())
    sent = list[bytes]()

    class Shop(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/product/import":
                (tmp_path / "late.png").write_bytes(picture())  # too late to be found
                sent.append(request.read())
            return httpx.Response(200, json={})

    with httpx.Client(base_url="http://shop.example", transport=Shop()) as client:
        begin_import(client, file, "create", lambda _: None)
    [form] = sent
    assert (b"a.png" in form, form.count(b"late.png")) == (True, 1)  # as its row has it
