"""Picture files in an object store such as S3, through fsspec, whose only importer this is.

Every call has a deadline, and every failure but "there is no such object" is one of the store: a lost bucket or
credentials that are refused say nothing of a picture. Buckets are never made here.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import fsspec
from aiohttp import ClientPayloadError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from fsspec.asyn import AsyncFileSystem

from tuwen.errors import ConfigurationError, ImageStoreUnavailable, PictureUnreadable
from tuwen.pictures.stored_file import StoredFile

CLIENT_TIMEOUT_S = 30.0
CONNECTIONS = 64  # more than threads that may want one: a call that hangs is not in the way of others
# A listing is many calls, each with the library's own time-outs.
LISTING_TIMEOUTS = 30
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class ObjectStore:
    """Paths are relative to the address. A path that there is none of is a FileNotFoundError."""

    may_be_unmounted = False

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # A listing of before must not answer for now, nor a client of other settings for this one.
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        is_s3 = address.startswith(("s3://", "s3a://"))
        if is_s3:
            options |= _s3_options(timeout_s)
        try:
            self._files, self._root = fsspec.core.url_to_fs(address, **options)
            if is_s3:
                self._files.retries = 1  # botocore has tried again by then; s3fs would multiply that
                self._make_client()
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"IMAGE_STORE_URL={address}: {error}") from error
        if not isinstance(self._files, AsyncFileSystem):  # only those know deadlines
            raise ConfigurationError(f"IMAGE_STORE_URL={address}: must be a folder or s3://bucket/prefix")
        self._bucket = self._root.partition("/")[0]

    def read(self, path: str) -> bytes:
        return bytes(self._ask(self._files.cat_file, self._full(path)))

    def write(self, path: str, data: bytes, *, derived: bool = False) -> None:
        """Objects appear whole or not at all, and are durable once the store has answered."""
        self._ask(self._files.pipe_file, self._full(path), data)

    def exists(self, path: str) -> bool:
        return bool(self._ask(self._files.exists, self._full(path)))

    def move(self, source: str, target: str) -> None:
        """Copy and delete: whoever is killed in between leaves both."""
        self._ask(self._files.cp_file, self._full(source), self._full(target))
        self._ask(self._files.rm_file, self._full(source))

    def remove(self, path: str) -> None:
        self._ask(self._files.rm_file, self._full(path))

    def list(self, folder: str) -> list[StoredFile]:
        """What lies in it, files and folders."""
        timeout_s = self._timeout_s * LISTING_TIMEOUTS
        infos = self._ask(self._files.ls, self._full(folder), detail=True, refresh=True, timeout=timeout_s)
        return [StoredFile(info["name"].removeprefix(self._root).lstrip("/"), _modified_at(info)) for info in infos]

    def check(self) -> None:
        try:
            self._ask(self._files.info, self._bucket)
        except FileNotFoundError as error:
            raise self._no_bucket() from error

    def _make_client(self) -> None:
        """Asks nobody but a machine's own service of credentials, and takes a second that no deadline should count."""
        with suppress(BotoCoreError, OSError):  # the first call meets it again, and says so
            self._files.connect(timeout=CLIENT_TIMEOUT_S)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Raises FileNotFoundError, or ImageStoreUnavailable."""
        try:
            return call(*arguments, **{"timeout": self._timeout_s, **options})
        except FileNotFoundError as error:
            if _response(error).get("Error", {}).get("Code") == "NoSuchBucket":
                raise self._no_bucket() from error
            raise
        except (PermissionError, NoCredentialsError) as error:
            message = f"The image store refuses access (IMAGE_STORE_URL, and AWS's credentials): {error}"
            raise _kind(error)(message) from error
        except (OSError, BotoCoreError, ClientError, ClientPayloadError) as error:
            reason = str(error) or f"no answer within {self._timeout_s:g} s"
            raise _kind(error)(f"The image store does not answer (IMAGE_STORE_URL): {reason}") from error

    def _no_bucket(self) -> ImageStoreUnavailable:
        return ImageStoreUnavailable(
            f"The bucket {self._bucket} does not exist (IMAGE_STORE_URL): make it, the service makes none."
        )


def _s3_options(timeout_s: float) -> dict[str, Any]:
    return {
        "max_concurrency": 1,  # otherwise each read asks for the size first
        "config_kwargs": {
            "connect_timeout": timeout_s / 2,
            "read_timeout": timeout_s / 2,
            "retries": {"mode": "standard", "total_max_attempts": 2},
            "max_pool_connections": CONNECTIONS,
        },
    }


def _kind(error: Exception) -> type[ImageStoreUnavailable]:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    about_this_one = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in PASSING
    return PictureUnreadable if about_this_one else ImageStoreUnavailable


def _response(error: Exception) -> dict[str, Any]:
    """What S3 answered, which s3fs keeps as the cause of its own error."""
    cause = error.__cause__ or error
    return cause.response if isinstance(cause, ClientError) else {}


def _modified_at(info: dict[str, Any]) -> datetime:
    moment = info.get("LastModified")
    return moment if isinstance(moment, datetime) else datetime.now(UTC)  # of unknown age: not old enough to go
