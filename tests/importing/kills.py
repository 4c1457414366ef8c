"""Imports in processes of their own that are killed after their n-th change of the database or the picture store.

`python -m tests.importing.kills` forks for each line on its standard input: {"data_dir": ..., "after": n}.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from tuwen.catalogue.picture_store import open_image_store
from tuwen.database.engine import Database
from tuwen.importing import importer, replacing
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.pictures.folder import Folder
from tuwen.settings import Settings

PAGE_ROWS = 3


async def import_all(settings: Settings) -> None:
    """All jobs that wait, to their ends."""
    database = Database(settings.database_dsn)
    images = open_image_store(settings, database)
    async with PictureFetcher(settings) as fetcher:
        working = importer.Importer(settings, database, images, PictureDecoder(settings), fetcher, lambda _: None)
        while await working.take_turn():
            pass
    database.close()


def _kill_after(changes: int) -> None:
    left = changes

    def changed() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    write, store = Database.write, Folder.write

    @contextmanager
    def counted_write(*arguments: Any, **options: Any) -> Iterator[Any]:
        with write(*arguments, **options) as session:
            yield session
        changed()

    @wraps(store)
    def counted_store(*arguments: Any, **options: Any) -> None:
        store(*arguments, **options)
        changed()

    Database.write = counted_write  # type: ignore[method-assign]
    Folder.write = counted_store  # type: ignore[method-assign]


def _fork(data_dir: Path, after: int) -> int:
    process_id = os.fork()
    if process_id == 0:
        try:
            importer.PAGE_ROWS = replacing.DELETED_AT_ONCE = PAGE_ROWS
            _kill_after(after)
            asyncio.run(import_all(Settings(_env_file=None, data_dir=data_dir)))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(process_id, 0)
    return -abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        print(_fork(Path(job["data_dir"]), job["after"]), flush=True)
