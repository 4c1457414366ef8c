"""The backup of docs/operations.md, by its own commands: made while products come in, restored without Milvus."""

import os
import re
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import ROOT, program_path, running_api, wait_until

TITLES = ["红色布艺沙发", "黑色铁艺书柜", "绿色玻璃餐桌"]


def run_documented(heading: str, **environment: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split(f"\n{heading}\n", 1)[1]
    [commands] = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[:1]
    env = os.environ | {name: str(value) for name, value in environment.items()} | {"PATH": program_path()}
    process = subprocess.run(["bash", "-c", commands], env=env, capture_output=True, text=True, check=False)
    unexpected = [line for line in process.stderr.splitlines() if ".part" not in line]
    assert unexpected == []


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
            run_documented("### Embedded", DATA_DIR=tmp_path / "live" / "data", BACKUP=backup)
        finally:
            stop.set()
            writer.join()
    run_documented("## Restore", DATA_DIR=restored / "data", BACKUP=backup)
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
