"""What Milvus Lite has is derived: a file of it that a power loss cut off costs time, and no hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.indexing.shop import Shop, run
from tuwen.settings import Settings

TITLES = {"红色沙发", "蓝色灯", "绿色椅子", "白色床", "黑色桌子"}
FILES = ("data/*.parquet", "delta/*.parquet", "manifest.json", "manifest.json*", "schema.json", "wal_*.arrow")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Settings:
    """An embedded shop with all kinds of files, whose Milvus Lite was killed."""
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("killed"), **models)
    titles = sorted(TITLES)

    async def fill(shop: Shop) -> None:
        for title in titles[:3]:
            shop.create(title)
        renamed = shop.create("旧名字")
        await shop.ingestor.ingest(shop.messages())
        shop.change(renamed, titles[3])
        await shop.ingestor.ingest(shop.messages())

    async def go_on_and_be_killed(shop: Shop) -> None:
        renamed = shop.create("旧名字", "blue")
        await shop.ingestor.ingest(shop.messages())
        shop.change(renamed, titles[4])
        await shop.ingestor.ingest(shop.messages())
        assert set(await shop.found("沙发")) == TITLES
        lite = shop.services.vector_db._lite
        assert lite is not None
        assert lite._child is not None
        lite._child.kill()

    run(settings, fill)
    run(settings, go_on_and_be_killed)
    return settings


@pytest.mark.parametrize("part", [0, 0.5], ids=["empty", "half"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_made_good(killed: Settings, tmp_path: Path, name: str, part: float) -> None:
    folder = tmp_path / "data"
    shutil.copytree(killed.data_dir, folder)
    files = [file for file in (folder / "milvus.db").rglob("*") if file.match(name)]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])

    async def come_back(shop: Shop) -> None:
        shop.mend()
        await shop.ingestor.ingest(shop.messages())
        assert set(await shop.found("沙发")) == TITLES
        assert set(shop.bound().values()) <= shop.in_milvus()
        shop.services.vector_db.check()

    run(killed.model_copy(update={"data_dir": folder}), come_back)
