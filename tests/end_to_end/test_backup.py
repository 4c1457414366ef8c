"""The backup of docs/operations.md, by its own commands: made while products come in, restored without Milvus."""

import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from orm_models import ProductRow
from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, environment, running_api, wait_until
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.settings import Settings

TITLES = ["红色布艺沙发", "黑色铁艺书柜", "绿色玻璃餐桌"]


def run_documented(heading: str, **settings: Path) -> subprocess.CompletedProcess[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split(f"\n{heading}\n", 1)[1]
    [commands] = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[:1]
    commands = commands.replace(".venv/bin/python", sys.executable)
    return subprocess.run(
        ["bash", "-c", commands], cwd=ROOT, env=environment(**settings), capture_output=True, text=True, check=False
    )


def back_up(data: Path, backup: Path) -> subprocess.CompletedProcess[str]:
    return run_documented("### Embedded", DATA_DIR=data, BACKUP=backup)


def restore(backup: Path, data: Path) -> subprocess.CompletedProcess[str]:
    return run_documented("## Restore", DATA_DIR=data, BACKUP=backup)


def succeeded(process: subprocess.CompletedProcess[str]) -> bool:
    return (process.returncode, process.stderr) == (0, "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of a shop with one product."""
    folder = tmp_path / "data"
    open_database(Settings(_env_file=None, data_dir=folder)).close()
    add_product(folder, 1)
    return folder


def add_product(data: Path, number: int) -> None:
    path = f"ab/{number:064}.png"
    (data / "images" / path).parent.mkdir(parents=True, exist_ok=True)
    (data / "images" / path).write_bytes(b"picture %d" % number)
    database = Database(f"sqlite:///{data / 'tuwen.db'}")
    with database.write() as session:
        columns = {"image_path": path, "image_sha256": f"{number:064}", "image_width": 1, "image_height": 1}
        session.add(ProductRow(title=f"{number}", **columns))
    database.close()


def products_in(folder: Path) -> dict[str, bytes]:
    """Title → picture."""
    with closing(sqlite3.connect(folder / "tuwen.db")) as connection:
        rows = connection.execute("SELECT title, image_path FROM product").fetchall()
    return {title: (folder / "images" / path).read_bytes() for title, path in rows}


def test_the_same_folder_takes_a_second_backup_and_each_is_whole(data: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup of % and ?"
    assert succeeded(back_up(data, backup))
    assert products_in(backup) == {"1": b"picture 1"}
    add_product(data, 2)
    (data / "images" / "ab" / "3.png.0123.part").write_bytes(b"an upload")
    connection = sqlite3.connect(data / "tuwen.db")  # somebody has it open, so that the newest rows are in the log
    connection.execute("UPDATE product SET title = 'two' WHERE title = '2'")
    connection.commit()
    assert succeeded(back_up(data, backup))
    connection.close()
    assert products_in(backup) == {"1": b"picture 1", "two": b"picture 2"}
    assert not list(backup.rglob("*.part*"))


def test_of_two_backups_into_one_folder_the_second_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as one that is under way has it
    refused = run_cli("backup", str(folder), DATA_DIR=str(data))
    assert (refused.returncode, "Another backup" in refused.stderr) == (1, True), refused.stderr
    os.close(descriptor)
    assert run_cli("backup", str(folder), DATA_DIR=str(data)).returncode == 0


def test_a_backup_of_a_folder_without_an_installation_fails_and_makes_none(tmp_path: Path) -> None:
    process = back_up(tmp_path / "typo", tmp_path / "backup")
    assert process.returncode != 0
    assert process.stderr == f"There is no installation in DATA_DIR={tmp_path / 'typo'}: no tuwen.db.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_fails_leaves_the_one_before_and_says_so(data: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert succeeded(back_up(data, backup))
    add_product(data, 2)
    (data / "images").rename(data / "away")
    (data / "images").mkdir()  # under a disk that is not mounted
    process = back_up(data, backup)
    assert (process.returncode, process.stdout) == (1, "")
    assert "is a disk not mounted?" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    (data / "images").rmdir()
    (data / "away").rename(data / "images")
    pictures = backup / "images" / "ab"
    pictures.rename(backup / "aside")
    pictures.write_text("a file where a folder should be")
    process = back_up(data, backup)
    assert process.returncode == 1
    assert "failed, and is not to be used" in process.stderr
    pictures.unlink()
    (backup / "aside").rename(pictures)
    assert products_in(backup) == {"1": b"picture 1"}


@pytest.mark.parametrize("left", ["tuwen.db", "tuwen.db-wal"])
def test_a_restore_refuses_a_folder_that_a_crash_has_left(data: Path, tmp_path: Path, left: str) -> None:
    backup, crashed = tmp_path / "backup", tmp_path / "crashed"
    assert succeeded(back_up(data, backup))
    crashed.mkdir()
    (crashed / left).write_bytes(b"newer rows")
    process = restore(backup, crashed)
    assert process.returncode == 1
    assert "move it away" in process.stderr
    assert {file.name: file.read_bytes() for file in crashed.iterdir()} == {left: b"newer rows"}
    (crashed / left).unlink()
    assert succeeded(restore(backup, crashed))
    assert products_in(crashed) == {"1": b"picture 1"}


def test_a_restore_without_the_pictures_comes_right_in_the_order_that_is_documented(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    backup, data = tmp_path / "backup", tmp_path / "restored" / "data"
    with running_api(tmp_path, **tiny_models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        create_product(client, TITLES[0])
        wait_until_indexed(client)
        assert succeeded(back_up(tmp_path / "data", backup))
    data.mkdir(parents=True)
    (backup / "tuwen.db").rename(data / "tuwen.db")
    take_it_as_it_is = ("reconcile", "--repair", "--delete-many")
    too_early = run_cli(*take_it_as_it_is, DATA_DIR=str(data))
    assert too_early.returncode == 2
    assert too_early.stderr.endswith(" starting the API or a worker makes it.\n")
    restored: dict[str, Any] = {"folder": tmp_path / "restored", **tiny_models}
    with (
        running_api(**restored, ready_path="/health/live") as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        wait_until(lambda: client.get("/health").json()["index"] is not None, what="the index")
        form = {"title": TITLES[1]}
        upload = client.post("/product", data=form, files={"image": ("a.png", picture(), "image/png")})
        assert upload.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert run_cli(*take_it_as_it_is, DATA_DIR=str(data)).returncode == 0
    with running_api(**restored) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        [lost] = client.get("/product/list", params={"index_status": "failed"}).json()["items"]
        assert (lost["title"], lost["index_error"][:19]) == (TITLES[0], "There is no picture")
        create_product(client, TITLES[1])


def test_a_backup_under_writes_is_searchable_again_without_milvus(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    stop = threading.Event()
    backup, restored = tmp_path / "backup", tmp_path / "restored"

    def write_on(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            for number in range(1000):
                if stop.is_set():
                    return
                create_product(client, f"夜间商品 {number}", picture((number % 256, 9, 9)))

    with (
        running_api(tmp_path / "live", **tiny_models) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for title in TITLES:
            create_product(client, title, picture("green"))
        wait_until_indexed(client)
        writer = threading.Thread(target=write_on, args=[url])
        writer.start()
        try:
            wait_until(lambda: client.get("/product/list").json()["total"] > len(TITLES), what="the first write")
            assert succeeded(back_up(tmp_path / "live" / "data", backup))
        finally:
            stop.set()
            writer.join()
    assert succeeded(restore(backup, restored / "data"))
    assert not (restored / "data" / "milvus.db").exists()
    with (
        running_api(restored, **tiny_models) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        total = client.get("/product/list").json()["total"]
        assert total > len(TITLES)

        def found(title: str) -> bool:
            answer = client.post("/search", json={"mode": "text_to_text", "text": title})
            return answer.is_success and [h["product"]["title"] for h in answer.json()["hits"][:1]] == [title]

        for title in TITLES:
            wait_until(lambda title=title: found(title), timeout_s=60, what=f"{title} to be found")  # type: ignore[misc]
        wait_until_indexed(client, timeout_s=60)
        listed = client.get("/product/list", params={"page_size": 200}).json()["items"]
        assert {item["index_status"] for item in listed} == {"indexed"}
        assert all(client.get(item["image_url"]).is_success for item in listed)


@pytest.mark.parametrize("mark", [r"^#+ ", r"^\|", r"^```", r"^- "])
def test_both_languages_have_the_same_structure(mark: str) -> None:
    english, chinese = ((ROOT / "docs" / name).read_text("utf-8") for name in ("operations.md", "operations.zh-CN.md"))
    assert len(re.findall(mark, english, re.MULTILINE)) == len(re.findall(mark, chinese, re.MULTILINE))
