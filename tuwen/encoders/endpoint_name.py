"""How an endpoint is named, `http://host:8000/v1#model`, and which servers a change of the models may name."""

import re
from typing import NamedTuple

import httpx

from tuwen.encoders.matryoshka import sized_name
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings

ADDRESS = re.compile(r"https?://", re.IGNORECASE)
SIZED = re.compile(r"(?P<model>.+)@(?P<size>[1-9][0-9]{0,4})")


class EndpointName(NamedTuple):
    url: str
    """To which `/embeddings` or `/rerank` is added."""
    model: str
    size: int | None = None
    """Of its vectors, as it was found."""

    def __str__(self) -> str:
        return f"{self.url}#{self.model}" + (f"@{self.size}" if self.size else "")

    @property
    def server(self) -> str:
        """Scheme, host and port, as the client reads them: lower case, and no port where it is the scheme's own."""
        url = httpx.URL(str(httpx.URL(self.url)))  # which drops that port of a scheme in lower case alone
        return f"{url.scheme}://{url.netloc.decode()}"


def endpoint_name(name: str, setting: str) -> EndpointName | None:
    """`http://host:8000/v1#model`; None for what is no address. Raises ModelUnavailable for one that can't be used."""
    if not ADDRESS.match(name):
        return None
    address, _, model = name.partition("#")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ModelUnavailable(f"{setting}: that is no address of an endpoint: {error}") from error
    if url.userinfo or url.query or not url.host or not model:
        raise ModelUnavailable(
            f"{setting}: an endpoint is written http://host:8000/v1#model, without a name or password "
            "(ENDPOINT_API_KEY has the key)"
        )
    sized = SIZED.fullmatch(model)
    bare = address.rstrip("/")
    return EndpointName(bare, sized["model"], int(sized["size"])) if sized else EndpointName(bare, model)


def unnamed_server(model: str, settings: Settings) -> str | None:
    """Of an endpoint whose server no setting names: whoever may change the models must not have the key sent anywhere,
    nor this service ask what they can't reach themselves. None for all else, what can't be used included.
    """
    endpoint = _endpoint_of(model)
    named = settings.clip_model, settings.text_model, settings.reranker_model
    allowed = map(_endpoint_of, (*named, *(f"{server}#any" for server in settings.endpoint_servers)))
    if endpoint is None or endpoint.server in {each.server for each in allowed if each}:
        return None
    return endpoint.server


def _endpoint_of(model: str) -> EndpointName | None:
    try:
        return endpoint_name(sized_name(model).model, "")
    except ModelUnavailable:  # which nobody can call either
        return None
