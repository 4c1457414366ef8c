"""Pictures by address: what a host says is the same still is neither sent nor encoded again."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import ImportJob
from orm_models import ImageSourceRow, ImportErrorRow, OutboxRow, ProductRow, utc_now
from tests.conftest import picture
from tests.importing.files import json_lines_of
from tests.importing.kills import import_all
from tuwen.catalogue.pictures import pictures_of
from tuwen.database.engine import Database
from tuwen.importing.files import new_file
from tuwen.importing.image_sources import KEPT_FOR, delete_unused_sources
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings

MOMENT = "Fri, 27 Nov 2026 08:00:00 GMT"


class Host(ThreadingHTTPServer):
    """`/NAME/COLOUR`: a picture of that colour, known by its ETag, the moment of its change, or by nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.colours: dict[str, str] = {}
        self.leads_to: dict[str, str] = {}
        self.answered = Counter[str]()
        """Path and status."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def since(self) -> dict[str, int]:
        """What was answered since the last call."""
        answered, self.answered = dict(self.answered), Counter[str]()
        return answered


class Answer(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        if name in self.server.leads_to:
            self.send_response(302)
            self.send_header("Location", "/" + self.server.leads_to[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, kind = picture(self.server.colours.get(name, name.partition(".")[0])), name.partition(".")[2]
        headers = {"etag": {"ETag": f'"{sha256(data).hexdigest()[:9]}"'}, "time": {"Last-Modified": MOMENT}}.get(
            kind, {}
        )
        asked = [self.headers["If-None-Match"], self.headers["If-Modified-Since"]]
        is_same = kind == "always304" or bool({*asked} & {*headers.values()})
        self.server.answered[f"{name} {304 if is_same else 200}"] += 1
        self.send_response(304 if is_same else 200)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", "0" if is_same else str(len(data)))
        self.end_headers()
        if not is_same:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, host: Host) -> Settings:
    allowed: dict[str, Any] = {
        "image_url_hosts": f"127.0.0.1:{host.server_port}",
        "image_url_private_networks": "127.0.0.0/8",
    }
    return Settings(_env_file=None, data_dir=tmp_path, durable_writes=False, **allowed)


def run(settings: Settings, database: Database, rows: dict[str, list[str]]) -> ImportJob:
    """A product by its sku, and its pictures' addresses."""
    name, file = new_file(settings)
    with file:
        file.write(json_lines_of(*({"sku": sku, "title": sku, "image": images} for sku, images in rows.items())))
    job = ImportJobs(database).create(name, "a.jsonl", "upsert")
    asyncio.run(import_all(settings))
    return ImportJobs(database).read(job.job_id)


def counts_of(job: ImportJob) -> tuple[int, int, int, int]:
    assert job.status == "done", job
    return job.created, job.updated, job.unchanged, job.failed


def pictures_in(database: Database, sku: str) -> list[str]:
    with database.read() as session:
        product = session.scalars(sa.select(ProductRow).where(ProductRow.sku == sku)).one()
        return [each.image_sha256 for each in pictures_of(session, [product])[product.product_id]]


def stored_as(*colours: str) -> list[str]:
    return [sha256(picture(colour)).hexdigest() for colour in colours]


def events_in(database: Database) -> int:
    with database.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(OutboxRow)) or 0


def test_what_is_the_same_still_is_not_sent_again(settings: Settings, database: Database, host: Host) -> None:
    several = [host.url(name) for name in ("red.etag", "blue.etag", "green.time")]
    rows = {"A": several, "B": [host.url("black.time")], "C": [host.url("white.nothing")]}
    names = ["red.etag", "blue.etag", "green.time", "black.time", "white.nothing"]
    assert counts_of(run(settings, database, rows)) == (3, 0, 0, 0)
    assert host.since() == {f"{name} 200": 1 for name in names}
    assert pictures_in(database, "A") == stored_as("red", "blue", "green")
    with database.write() as session:  # which would else be sent once more, in case that their events were lost
        session.execute(sa.update(ProductRow).values(index_status="indexed"))
    events = events_in(database)
    for _ in range(2):
        assert counts_of(run(settings, database, rows)) == (0, 0, 3, 0)
        assert host.since() == {f"{name} 304": 1 for name in names[:4]} | {"white.nothing 200": 1}
    assert events_in(database) == events  # and so nothing is encoded

    host.colours["blue.etag"] = "yellow"
    assert counts_of(run(settings, database, rows)) == (0, 1, 2, 0)
    assert host.since()["blue.etag 200"] == 1
    assert pictures_in(database, "A") == stored_as("red", "yellow", "green")
    assert counts_of(run(settings, database, rows)) == (0, 0, 3, 0)
    assert host.since()["blue.etag 304"] == 1


def test_it_counts_only_where_the_product_has_that_picture(settings: Settings, database: Database, host: Host) -> None:
    red, blue, black = (host.url(f"{colour}.etag") for colour in ("red", "blue", "black"))
    run(settings, database, {"A": [red, blue], "B": [black]})
    host.since()
    assert counts_of(run(settings, database, {"A": [blue, red], "B": [red]})) == (0, 2, 0, 0)
    assert host.since() == {"blue.etag 200": 1, "red.etag 200": 2}
    assert pictures_in(database, "A") == stored_as("blue", "red")
    assert pictures_in(database, "B") == stored_as("red")
    with database.write() as session:  # as when its file was lost
        session.execute(sa.update(ProductRow).values(index_status="failed"))
    assert counts_of(run(settings, database, {"B": [red]})) == (0, 0, 1, 0)
    assert host.since() == {"red.etag 200": 1}


def test_a_host_that_was_not_asked_whether_it_is_the_same_does_not_say_so(
    settings: Settings, database: Database, host: Host
) -> None:
    assert counts_of(run(settings, database, {"A": [host.url("red.always304")]})) == (0, 0, 0, 1)
    with database.read() as session:
        [error] = session.scalars(sa.select(ImportErrorRow))
    assert (error.field, error.reason) == ("image", "answered 304; it must answer 200 itself")


def test_an_address_that_leads_to_another_picture_now_is_not_called_the_same(
    settings: Settings, database: Database, host: Host
) -> None:
    rows = {"A": [host.url("main")]}
    for colour in ("red", "blue"):  # two files of one moment, so that the second's host would say 304
        host.leads_to["main"] = f"{colour}.time"
        run(settings, database, rows)
        assert pictures_in(database, "A") == stored_as(colour)


def test_what_no_file_has_named_for_long_is_forgotten(settings: Settings, database: Database, host: Host) -> None:
    rows = {"A": [host.url("red.etag")], "B": [host.url("black.time")]}
    run(settings, database, rows)
    with database.write() as session:
        session.execute(sa.update(ImageSourceRow).values(used_at=utc_now() - 2 * KEPT_FOR))
    run(settings, database, {"A": rows["A"]})
    delete_unused_sources(database)
    with database.read() as session:
        assert session.scalars(sa.select(ImageSourceRow.image_sha256)).all() == stored_as("red")
    host.since()
    assert counts_of(run(settings, database, rows)) == (0, 0, 2, 0)
    assert host.since() == {"red.etag 304": 1, "black.time 200": 1}
