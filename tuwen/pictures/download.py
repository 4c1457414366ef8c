"""Fetches a picture from a URL: only from hosts that the settings allow, and no more than an upload may have."""

import asyncio
from urllib.parse import urlsplit

import httpx

from tuwen.errors import ImageTooLarge, InvalidInput
from tuwen.settings import Settings


class NotFetched(InvalidInput):
    """The host did not answer, or not with the picture; it may the next time."""


async def download_image(url: str, settings: Settings) -> bytes:
    """The bytes behind the URL, not yet checked to be a picture. Redirects could leave the allowed hosts."""
    _require_allowed(url, settings)
    try:
        async with (
            asyncio.timeout(settings.image_url_timeout_s),  # httpx's is for each of its waits
            httpx.AsyncClient(timeout=settings.image_url_timeout_s, follow_redirects=False) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise NotFetched.in_field("image_url", f"answered {response.status_code}; it must answer 200 itself")
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > settings.upload_max_bytes:
                    raise ImageTooLarge.in_field("image_url", f"has more than {settings.upload_max_bytes:,} bytes")
            return bytes(data)
    except TimeoutError as error:
        within = f"within {settings.image_url_timeout_s:g} s (IMAGE_URL_TIMEOUT_S)"
        raise NotFetched.in_field("image_url", f"can't be fetched {within}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotFetched.in_field("image_url", f"can't be fetched: {error or type(error).__name__}") from error


def _require_allowed(url: str, settings: Settings) -> None:
    if not settings.image_url_hosts:
        raise InvalidInput.in_field(
            "image_url", "is switched off here; send the picture itself, or have IMAGE_URL_HOSTS name the allowed hosts"
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput.in_field("image_url", f"is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or parts.hostname not in settings.image_url_hosts:
        allowed = ", ".join(settings.image_url_hosts)
        raise InvalidInput.in_field("image_url", f"must be http or https on one of: {allowed}")
