"""Which request is being worked for: set where one comes in, and where its message or job is taken up.

What outlives a request is started in `context_of_no_request`, or all that it ever logs is called that one's.
"""

import contextvars
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

LENGTH = 64
# What a header, a log line and a shell take as it is.
WELL_FORMED = re.compile(rf"[A-Za-z0-9._-]{{1,{LENGTH}}}", re.ASCII)
MOST_SHOWN = 32  # a batch of more is nobody's in particular

_current: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("request_ids", default=())
_of_products: contextvars.ContextVar[Mapping[int, str]] = contextvars.ContextVar("requests_of_products")


def request_id_from(offered: str) -> str:
    """The caller's own where it is well-formed; else a new one."""
    return offered if WELL_FORMED.fullmatch(offered) else f"{random.getrandbits(128):032x}"


def current_request_id() -> str | None:
    """None, too, where the work is several requests' at once."""
    ids = _current.get()
    return ids[0] if len(ids) == 1 else None


def shown_request_ids() -> str:
    """For a log line; empty: no request's."""
    ids = _current.get()
    more = len(ids) - MOST_SHOWN
    return ",".join(ids[:MOST_SHOWN]) + (f",+{more}" if more > 0 else "")


@contextmanager
def working_for(request_ids: Iterable[str | None]) -> Iterator[None]:
    """None and what is not well-formed (a message may be anybody's) is left out."""
    ids = tuple(dict.fromkeys(each for each in request_ids if each and WELL_FORMED.fullmatch(each)))
    token = _current.set(ids)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def working_for_products(requests: Mapping[int, str]) -> Iterator[None]:
    """A batch: by product, the request that changed it. What is said of one of them alone stands in `about_product`."""
    token = _of_products.set(requests)
    try:
        with working_for(requests.values()):
            yield
    finally:
        _of_products.reset(token)


@contextmanager
def about_product(product_id: int) -> Iterator[None]:
    with working_for([_of_products.get({}).get(product_id)]):
        yield


def context_of_no_request() -> contextvars.Context:
    """For a task or loop that will work for others as well."""
    context = contextvars.copy_context()
    context.run(_current.set, ())
    return context
