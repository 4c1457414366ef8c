"""Those of the settings that limit something; `tuwen/settings.py` has all of them."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, IPvAnyNetwork, field_validator
from pydantic_settings import BaseSettings, NoDecode

TITLE_COLUMN_LENGTH = 500
RATE_LIMITS_LENGTH = 200
# search=50/second, write=20/10 second: kinds of requests, and how many of them in which time; none for nothing.
_RATE = r"(search|write|admin|generate)=[1-9]\d{0,8}/([1-9]\d{0,3} ?)?(second|minute|hour|day)s?"
RATE_LIMITS = rf"^({_RATE}(, ?{_RATE})*)?$"


def _known_limits(text: str) -> str:
    if not re.fullmatch(RATE_LIMITS, text):
        raise ValueError(
            "must be limits as search=50/second, write=20/10 seconds, generate=100/day: of search, write, admin or "
            "generate, each in a second, minute, hour or day, or several"
        )
    return text


RateLimits = Annotated[str, AfterValidator(_known_limits), Field(json_schema_extra={"pattern": RATE_LIMITS})]


def split_at_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class LimitSettings(BaseSettings):
    # Limits
    upload_max_bytes: int = Field(32 * 1024 * 1024, ge=1)
    image_metadata: Literal["remove", "keep"] = "remove"
    image_max_pixels: int = Field(52_000_000, ge=1)
    decode_max_megapixels: int = Field(80, ge=1)
    title_max_length: int = Field(TITLE_COLUMN_LENGTH, ge=1, le=TITLE_COLUMN_LENGTH)
    attributes_max_bytes: int = Field(32 * 1024, ge=2, le=60 * 1024)
    import_max_bytes: int = Field(8 * 1024 * 1024 * 1024, ge=1)
    search_max_offset: int = Field(1000, ge=0, le=10_000)
    rate_limits: RateLimits = ""
    rate_limit_storage: str = Field("memory", repr=False)  # with a password in it
    uploads_at_once: int = Field(200, ge=1)
    uploads_per_client: int = Field(100, ge=1)
    streams_at_once: int = Field(100, ge=1)
    streams_per_client: int = Field(50, ge=1)
    import_queue_per_client: int = Field(50, ge=1)
    generation_queue_size: int = Field(100, ge=1)
    generation_queue_per_client: int = Field(50, ge=1)
    generator_max_steps: int = Field(100, ge=1)
    generator_max_side: int = Field(1024, ge=64)
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    image_url_private_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    image_url_timeout_s: float = Field(5.0, gt=0)

    @field_validator("image_url_hosts", "image_url_private_networks", mode="before")
    @classmethod
    def split_hosts_at_commas(cls, value: object) -> object:
        return split_at_commas(value)
