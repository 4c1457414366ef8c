"""Fetches a picture from a URL: of a host that the settings allow, on the open internet, within a time and a size."""

import asyncio
from typing import NamedTuple, Self

import httpcore
import httpx

from tuwen.errors import ConfigurationError, ImageTooLarge, InvalidInput
from tuwen.pictures.public_network import PublicNetwork
from tuwen.settings import VERSION, Settings

CONNECTIONS, KEPT_CONNECTIONS, KEPT_FOR_S = 32, 8, 10.0
MOST_REDIRECTS = 3
MOST_PORT = 65_535
LONGEST_VALIDATOR = 255
VALIDATORS = (b"etag", b"last-modified")
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PORTS = {"http": 80, "https": 443}


class Validators(NamedTuple):
    """By which a host tells whether a picture is the same still (RFC 9110, 8.8)."""

    etag: str | None = None
    last_modified: str | None = None


NONE = Validators()


class Download(NamedTuple):
    data: bytes
    """Not yet checked to be a picture."""
    validators: Validators
    is_same: bool = False
    """As it was with the validators that were known; `data` is empty then."""


class NotFetched(InvalidInput):
    """The host did not answer, or not with the picture; it may the next time."""


class Host(NamedTuple):
    name: bytes
    """As DNS writes it: lower case, punycode."""
    port: int | None
    """None: the scheme's own."""


class PictureFetcher:
    """For all of a process: its connections are kept for the next picture of the same host."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        self._settings = settings
        self._hosts = frozenset(_host_of_setting(each) for each in settings.image_url_hosts)
        # httpcore itself, since httpx has no place for a network of one's own; no proxy of the environment is asked,
        # which would look the host up again.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_FOR_S,
            network_backend=PublicNetwork(settings.image_url_private_networks),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def fetch(self, url: str) -> bytes:
        """The bytes behind the URL, not yet checked to be a picture. Raises InvalidInput, NotFetched, ImageTooLarge."""
        return (await self.fetch_unless_same(url, NONE)).data

    async def fetch_unless_same(self, url: str, known: Validators) -> Download:
        """As `fetch`; sends nothing where it is what had these validators."""
        try:
            async with asyncio.timeout(self._settings.image_url_timeout_s):  # for all of it, redirects too
                return await self._follow(url, known)
        except TimeoutError as error:
            within = f"within {self._settings.image_url_timeout_s:g} s (IMAGE_URL_TIMEOUT_S)"
            raise NotFetched.in_field("image_url", f"can't be fetched {within}") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise NotFetched.in_field("image_url", f"can't be fetched: {error or type(error).__name__}") from error

    async def _follow(self, url: str, known: Validators) -> Download:
        address = _parsed(url)
        self._require_allowed(address)
        answer = await self._get(address, known)
        for _ in range(MOST_REDIRECTS):
            if isinstance(answer, Download):
                return answer
            address = _parsed(answer, address)
            self._require_allowed(address)
            answer = await self._get(address, NONE)
            if isinstance(answer, Download):
                # Its validators are another address's: the next time this one may lead elsewhere.
                return answer._replace(validators=NONE)
        raise NotFetched.in_field("image_url", f"leads on more than {MOST_REDIRECTS} times")

    async def _get(self, url: httpx.URL, known: Validators) -> Download | str:
        """What is there, or where it leads on to."""
        wanted = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        # Compressed, a few kilobytes could stand for gigabytes; pictures gain nothing by it.
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", url.netloc),
            ("User-Agent", f"tuwen/{VERSION}"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
        ]
        conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
        headers += [(name, value) for name, value in conditions.items() if value is not None]
        async with self._pool.stream("GET", wanted, headers=headers) as response:
            fields = {name.lower(): value for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in fields:
                return fields[b"location"].decode("ascii", errors="replace")
            if response.status == httpx.codes.NOT_MODIFIED and any(known):
                return Download(b"", known, is_same=True)
            if response.status != httpx.codes.OK:
                raise NotFetched.in_field("image_url", f"answered {response.status}; it must answer 200 itself")
            if fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                raise NotFetched.in_field("image_url", "answered compressed, and was asked not to")
            data = await self._body(response, fields.get(b"content-length", b""))
            return Download(data, Validators(*(_validator(fields.get(name)) for name in VALIDATORS)))

    async def _body(self, response: httpcore.Response, announced: bytes) -> bytes:
        limit = self._settings.upload_max_bytes
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > limit:
                raise _too_large(limit)
        return bytes(data)

    def _require_allowed(self, url: httpx.URL) -> None:
        if not self._hosts:
            raise InvalidInput.in_field(
                "image_url",
                "is switched off here; send the picture itself, or have IMAGE_URL_HOSTS name the allowed hosts",
            )
        port = url.port or PORTS.get(url.scheme)
        allowed = {Host(_name_of(url), port)} | (
            {Host(_name_of(url), None)} if port == PORTS.get(url.scheme) else set()
        )
        if port is None or url.scheme not in PORTS or url.userinfo or self._hosts.isdisjoint(allowed):
            hosts = ", ".join(self._settings.image_url_hosts)
            raise InvalidInput.in_field("image_url", f"must be http or https on one of: {hosts}")


def _too_large(limit: int) -> ImageTooLarge:
    return ImageTooLarge.in_field("image_url", f"has more than {limit:,} bytes")


def _parsed(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return httpx.URL(url) if base is None else base.join(url)
    except httpx.InvalidURL as error:
        raise InvalidInput.in_field("image_url", f"is not a URL: {error}") from error


def _validator(value: bytes | None) -> str | None:
    """One that can be sent back as it is."""
    return value.decode() if value and len(value) <= LONGEST_VALIDATOR and value.isascii() else None


def _name_of(url: httpx.URL) -> bytes:
    return url.raw_host.rstrip(b".")


def _host_of_setting(entry: str) -> Host:
    try:
        url = httpx.URL(f"//{entry}")
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"IMAGE_URL_HOSTS: {entry!r} is no host: {error}") from error
    is_host = url.host and b"%" not in url.raw_host and not url.userinfo and url.raw_path == b"/"
    if not is_host or (url.port or 0) > MOST_PORT:
        raise ConfigurationError(f"IMAGE_URL_HOSTS: {entry!r} is no host; write shop.example or shop.example:8080.")
    return Host(_name_of(url), url.port)
