"""What a search asks: pictures in base64."""

import asyncio
import base64
import random
import time

import pytest

from tests.promises import require_in_time
from tuwen.background import WorkPool
from tuwen.errors import InvalidInput
from tuwen.search.query import SLICE_CHARACTERS, decode_base64


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, *(SLICE_CHARACTERS * 3 // 4 + more for more in range(-7, 8)), 10**6])
def test_base64_in_slices_is_base64(size: int) -> None:
    data = random.Random(size).randbytes(size)
    encoded = base64.b64encode(data).decode()
    assert decode_base64(encoded) == data
    assert decode_base64(f"data:image/webp;base64,{encoded}") == data
    assert decode_base64(f" DATA:image/webp;base64,{encoded}") == data
    assert decode_base64(base64.urlsafe_b64encode(data).decode().rstrip("=")) == data
    assert decode_base64("\n " + base64.encodebytes(data).decode() + " \r\n") == data


ENCODED = "QUJD" * (SLICE_CHARACTERS // 2)


@pytest.mark.parametrize(
    "encoded",
    [
        ENCODED + "Q",
        ENCODED[: SLICE_CHARACTERS - 4] + "QQ==" + ENCODED,  # two behind each other
        ENCODED + "QQ==" + "QQ==",
        ENCODED + "QUI=QUJD",
        ENCODED + "QQ==A",
        ENCODED + "====",
        "=" + ENCODED,
        ENCODED + "红",
        ENCODED[:9] + "!" + ENCODED[10:],
        "data:image/webp;base64",
    ],
)
def test_what_is_not_base64_is_refused_wherever_it_is_wrong(encoded: str) -> None:
    with pytest.raises(InvalidInput, match="is not base64"):
        decode_base64(encoded)


def test_a_large_picture_in_base64_holds_up_nobody() -> None:
    """Nor does Python's one lock, which b64decode keeps to its end."""
    encoded = base64.b64encode(random.Random(0).randbytes(60_000_000)).decode()
    started = time.monotonic()
    base64.b64decode(encoded, validate=True)
    in_one_piece = time.monotonic() - started

    async def longest_pause() -> float:
        pool = WorkPool("decoding base64", threads=1, max_waiting=0)
        decoding = asyncio.create_task(pool.run(decode_base64, encoded))
        longest, turn = 0.0, time.monotonic()
        while not decoding.done():
            await asyncio.sleep(0)
            longest, turn = max(longest, time.monotonic() - turn), time.monotonic()
        await decoding
        return longest

    require_in_time(asyncio.run(longest_pause()), in_one_piece / 2)
