"""The service while its database hangs or is held: requests are refused in time, and it comes back by itself."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import freeze, running_api, wait_until
from tests.promises import require_in_time
from tests.secrecy import assert_tells_nothing
from tests.servers import new_mysql_database, running_mariadb_process

TIMEOUT_S = 2.0


def create(client: httpx.Client) -> httpx.Response:
    return client.post("/product", data={"title": "新商品"}, files={"image": ("p.png", picture("blue"))})


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]
) -> Iterator[tuple[httpx.Client, sa.Engine, int]]:
    """A client of the API, a way into its MariaDB, and the process of that."""
    folder = tmp_path_factory.mktemp("frozen-mariadb")
    with running_mariadb_process(folder / "mariadb") as (server, process):
        dsn = new_mysql_database(server)
        settings: dict[str, Any] = {"DATABASE_URL": dsn, "DATABASE_TIMEOUT_S": TIMEOUT_S, "RETRY_BACKOFF_MAX_S": 1}
        with (
            running_api(folder, **tiny_models, **settings) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            engine = sa.create_engine(dsn)
            yield client, engine, process.pid
            engine.dispose()


def test_a_frozen_mariadb_holds_no_request_for_ever(shop: tuple[httpx.Client, sa.Engine, int]) -> None:
    client, _, pid = shop
    product = create_product(client, "红色沙发")
    wait_until_indexed(client, timeout_s=60)
    freeze(pid)
    try:
        requests: list[Callable[[], httpx.Response]] = [
            lambda: client.get(f"/product/{product['product_id']}"),
            lambda: create(client),
        ]
        for request in requests:
            started = time.monotonic()
            refused = request()
            # An open connection is asked whether it lives, then a new one is tried.
            require_in_time(time.monotonic() - started, 2 * TIMEOUT_S + 2)
            assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "5"), refused.text
            assert refused.json()["type"].endswith("database-unavailable")
            assert_tells_nothing(refused)
        started = time.monotonic()
        assert client.get("/health/live").is_success
        require_in_time(time.monotonic() - started, 1)
        assert client.get("/health").json()["components"]["database"]["status"] == "down"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: create(client).is_success, timeout_s=40, what="creates to work again")
    wait_until_indexed(client, timeout_s=60)


def test_a_change_that_waits_for_another_ones_lock_is_refused_in_time(
    shop: tuple[httpx.Client, sa.Engine, int],
) -> None:
    client, engine, _ = shop
    product = create_product(client, "红色沙发")
    with engine.begin() as holder:
        holder.execute(sa.text("SELECT * FROM product FOR UPDATE"))
        refused = client.patch(f"/product/{product['product_id']}", files={"price": (None, "5")})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["type"].endswith("database-busy")
        assert client.get("/product/list").is_success  # reading waits for nobody
    assert client.patch(f"/product/{product['product_id']}", files={"price": (None, "5")}).json()["version"] == 2
    wait_until_indexed(client, timeout_s=60)
