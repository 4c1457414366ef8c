"""/health tells what really answers: of the models, whose loop is made to end inside, of the disk, of processes."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from main import create_app
from orm_models import ProcessRow, ProductRow, utc_now
from tests.processes import EXPORTS
from tuwen.api.state import Api
from tuwen.database.start import open_database
from tuwen.processes import GONE_AFTER, Presence
from tuwen.settings import Settings

THIS_MACHINE = ("127.0.0.1", 50000)
OWN_ADDRESS = "http://127.0.0.1"


async def end_the_loops_that_feed_the_models() -> None:
    loops = [task for task in asyncio.all_tasks() if "MicroBatcher._run" in repr(task.get_coro())]
    assert loops
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str]) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, encoder_cache_dir=EXPORTS, **models)


def test_models_that_answer_no_more_are_said_and_refused(settings: Settings) -> None:
    query = {"mode": "text_to_text", "text": "沙发"}
    with TestClient(create_app(settings), base_url=OWN_ADDRESS, client=THIS_MACHINE) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["components"]["models"]["status"]) == (httpx.codes.OK, "ok")
        assert client.post("/search", json=query).is_success
        assert client.portal is not None
        client.portal.call(end_the_loops_that_feed_the_models)
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (httpx.codes.SERVICE_UNAVAILABLE, "degraded")
        down = {name: part for name, part in health.json()["components"].items() if part["status"] == "down"}
        assert list(down) == ["models"]
        assert "restart the service" in down["models"]["detail"]
        refused = client.post("/search", json=query | {"text": "椅子"})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tuwen:problem:models-unavailable")


def part(client: TestClient, name: str) -> tuple[str, str]:
    found = client.get("/health").json()["components"][name]
    return found["status"], found["detail"] or ""


def test_a_disk_that_is_nearly_full_and_a_backlog_are_said(settings: Settings) -> None:
    little_room = settings.model_copy(update={"disk_min_free_mb": 10**12, "reconcile_interval_s": 0})
    with TestClient(create_app(little_room), base_url=OWN_ADDRESS, client=THIS_MACHINE) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (httpx.codes.SERVICE_UNAVAILABLE, "degraded")
        status, detail = part(client, "disk")
        assert status == "degraded"
        assert f"MB are free in {settings.data_dir}: less than" in detail
        in_chinese = client.get("/health", headers={"Accept-Language": "zh"}).json()["components"]["disk"]["detail"]
        assert in_chinese.startswith(f"{settings.data_dir} 只剩 ")
        assert client.get("/health/ready").status_code == httpx.codes.OK
        assert health.json()["backlog"] == {"pending": 0, "oldest_s": None, "jobs": 0}
        with open_database(settings).write() as session:
            moment = utc_now() - timedelta(minutes=5)
            session.add(
                ProductRow(
                    title="x", image_path="x", image_sha256="0", image_width=1, image_height=1, updated_at=moment
                )
            )
        backlog = client.get("/health").json()["backlog"]
        assert (backlog["pending"], backlog["oldest_s"] >= 300) == (1, True)


def test_ready_is_who_can_search_whatever_else_is_away(settings: Settings) -> None:
    with TestClient(create_app(settings), base_url=OWN_ADDRESS, client=THIS_MACHINE) as client:
        images = settings.data_dir / "images"
        images.rename(settings.data_dir / "elsewhere")  # all APIs share it: without it none must be taken out
        assert part(client, "image_store")[0] == "down"
        assert client.get("/health").status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert client.get("/health/ready").status_code == httpx.codes.OK
        assert client.post("/search", json={"mode": "text_to_text", "text": "沙发"}).is_success
        assert client.portal is not None
        api: Api = client.app_state["api"]
        client.portal.call(api.services.encoding.text_documents.close)
        assert part(client, "models")[0] == "down"
        assert client.get("/health/ready").status_code == httpx.codes.OK  # the index alone waits
        client.portal.call(end_the_loops_that_feed_the_models)
        assert client.get("/health/ready").status_code == httpx.codes.SERVICE_UNAVAILABLE


def test_who_indexes_and_who_draws_is_known(settings: Settings) -> None:
    """As on the full stack, whose workers are processes of their own; no broker is needed to see them."""
    with TestClient(
        create_app(settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})),
        base_url=OWN_ADDRESS,
        client=THIS_MACHINE,
    ) as client:
        database = open_database(settings)
        assert part(client, "indexing")[0] == "down"
        assert part(client, "drawing")[0] == "ok"  # nobody asks for a picture
        client.post("/generate", json={"prompt": "沙发"})
        assert part(client, "drawing")[0] == "down"
        assert client.get("/health/ready").status_code == httpx.codes.OK

        late = {"ingestion": 0.0, "reconciliation": 75.0}
        worker = Presence(database, "worker", lambda: {"loops": late})
        Presence(database, "generation", lambda: {"loops": {"drawing": 0.0}}).renew()
        worker.renew()
        assert part(client, "drawing") == ("ok", "")
        status, detail = part(client, "indexing")
        assert (status, detail[:18], detail[-23:]) == ("degraded", "reconciliation in ", " has been due for 75 s.")
        ready = client.get("/health/ready", headers={"Accept-Language": "zh-CN"}).json()
        assert ready["components"]["indexing"]["detail"].endswith(" 中的 reconciliation 已逾期 75 秒没有动静。")
        late["reconciliation"] = 0.0
        worker.renew()
        assert part(client, "indexing") == ("ok", "")
        with database.write() as session:  # it was killed a minute ago
            session.execute(sa.update(ProcessRow).values(seen_at=utc_now() - GONE_AFTER))
        assert part(client, "indexing")[0] == "down"
