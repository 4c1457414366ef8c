"""What imports may take of the disk that the databases are on, too."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from main import create_app
from orm_models import JobRow, utc_now
from tests.api.test_api import assert_problem
from tests.importing.files import csv_of
from tests.processes import EXPORTS, wait_until
from tests.secrecy import assert_tells_nothing
from tuwen.database.start import open_database
from tuwen.errors import DependencyUnavailable, Overloaded
from tuwen.importing import files
from tuwen.importing.files import import_folder, new_file
from tuwen.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str]) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, encoder_cache_dir=EXPORTS, **models)


def settings_in(folder: Path, **changes: int) -> Settings:
    return Settings(_env_file=None, data_dir=folder).model_copy(update=changes)


def test_no_file_is_taken_where_the_disk_has_too_little_room(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, disk_min_free_mb=10**9)
    with pytest.raises(DependencyUnavailable, match="DISK_MIN_FREE_MB"):
        new_file(settings)
    assert list(import_folder(settings).iterdir()) == []


def test_files_that_come_in_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_BYTES", 1000)
    settings = settings_in(tmp_path, import_max_bytes=10_000)
    (_, first), (_, second) = new_file(settings), new_file(settings)
    with first, second:
        for file in (first, second):
            for _ in range(9):
                file.write(bytes(1000))
            file.flush()
        new_file(settings)[1].close()
        second.write(bytes(3000))
        second.flush()
        with pytest.raises(Overloaded, match="limit is 20,000"):
            second.write(bytes(1000))
        with pytest.raises(Overloaded, match="IMPORT_MAX_BYTES"):
            new_file(settings)


def test_so_many_imports_wait_and_no_more(api: httpx.Client, api_folder: Path) -> None:
    folder = api_folder / "data" / "imports"
    folder.mkdir(exist_ok=True)
    waiting = [folder / f"waiting-{number}" for number in range(files.MOST_WAITING)]
    try:
        for file in waiting:
            file.touch()
        response = api.post("/product/import", files={"file": ("a.csv", b"x")})
        assert_problem(response, 503, None, "imports wait, the limit is 100")
        assert int(response.headers["Retry-After"]) > 0
    finally:
        for file in waiting:
            file.unlink()
    assert api.post("/product/import", files={"file": ("a.csv", b"x")}).status_code == httpx.codes.ACCEPTED


def test_an_import_waits_until_there_is_room(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    little_room = settings.model_copy(update={"disk_min_free_mb": 10**9})
    with TestClient(create_app(little_room), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)) as client:
        response = client.post("/product/import", files={"file": ("a.csv", b"x")})
        assert_tells_nothing(
            httpx.Response(response.status_code, headers=dict(response.headers), content=response.content)
        )
        assert "There is no room for imports" in caplog.text
        assert "DISK_MIN_FREE_MB" in caplog.text
        folder = import_folder(settings)
        assert list(folder.iterdir()) == []
        (folder / "taken-before").write_bytes(csv_of(["sku", "title"], ["1", "a"]))
        with open_database(settings).write() as session:
            request = {"file": "taken-before", "name": "a.csv", "mode": "create"}
            session.add(JobRow(kind="import", request=request, state={}, created_at=utc_now()))
        wait_until(lambda: "waits until there is room" in caplog.text, timeout_s=30, what="the import to wait")
        job = client.get("/product/import/1").json()
        assert (job["status"], job["rows"]) == ("running", 0)
    with TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)) as client:
        wait_until(lambda: client.get(job["status_url"]).json()["status"] == "done", timeout_s=30, what="the import")
        assert client.get(job["status_url"]).json()["rows"] == 1
