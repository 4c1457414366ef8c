"""/health tells what really answers: here of the models, whose loop is made to end inside a running application."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from main import create_app
from tuwen.settings import Settings


async def end_the_loops_that_feed_the_models() -> None:
    loops = [task for task in asyncio.all_tasks() if "MicroBatcher._run" in repr(task.get_coro())]
    assert loops
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)


def test_models_that_answer_no_more_are_said_and_refused(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    settings = Settings(_env_file=None, data_dir=tmp_path, **models)
    query = {"mode": "text_to_text", "text": "沙发"}
    with TestClient(create_app(settings)) as client:
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
