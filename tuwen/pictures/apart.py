"""A process apart for the formats whose readers are large, rarely met and in C: HEIC, AVIF, TIFF, JPEG 2000.

What such a file does to it (a crash, all memory, a decoding without end) ends that process and refuses that file, and
the service goes on. It is started when it is first needed, with an ordinary priority, whoever needs it: uploads and the
index share it with searches. It ends by itself after a minute without work.
"""

import json
import math
import os
import resource
import select
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from tuwen.cores import started_ordinarily, thread_variables
from tuwen.errors import ImageTooLarge, InvalidInput, Overloaded, UnreadableImage, UnsupportedImageType
from tuwen.pictures.decoding import FULL_COPIES, Decoded, Header, decode, read_header
from tuwen.settings import PROJECT_ROOT

APART = {"HEIF", "AVIF", "TIFF", "JPEG2000"}
IDLE_S = 60.0
# Of processor time. The largest that the defaults let in take a few seconds.
LONGEST_S = 60
# By the clock, for a reader that waits without computing; on a busy machine a file must not be refused for the others.
LONGEST_WAIT_S = 600.0
# Beside the pixels: the readers' libraries, which are loaded when they are needed, and the file itself.
BESIDE_PIXELS = 512 << 20
REQUEST, ANSWER = struct.Struct(">BHBQ"), struct.Struct(">II")
HEADER, PIXELS = 0, 1
GIVES_UP = "can't be decoded: it takes too much memory or time, or crashes its reader"
ERRORS: dict[str, type[InvalidInput]] = {
    each.slug: each for each in (UnreadableImage, UnsupportedImageType, ImageTooLarge)
}  # fmt: skip


class ReadersApart:
    """As many processes as threads that call at once. Raises what `read_header` and `decode` raise."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: what each may take, beside Python itself."""
        self._max_bytes = max_bytes
        self._idle: list[_Reader] = []
        weakref.finalize(self, _stop, self._idle)

    def header(self, data: bytes, side: int) -> Header:
        said, _ = self._ask(HEADER, side, False, data)
        return Header(**said)

    def decode(self, data: bytes, *, side: int, trim: bool) -> Decoded:
        said, pixels = self._ask(PIXELS, side, trim, data)
        image = Image.frombytes("RGB", tuple(said.pop("size")), pixels)
        return Decoded(image, **said)

    def _ask(self, what: int, side: int, trim: bool, data: bytes) -> tuple[dict[str, Any], bytes]:
        for _ in range(2):  # it may have ended while it was idle, or been killed for no fault of the file's
            reader = self._idle.pop() if self._idle else _Reader(self._max_bytes)
            try:
                said, pixels = reader.ask(what, side, trim, data)
            except (OSError, EOFError, struct.error):
                reader.stop()
                continue
            self._idle.append(reader)
            if "slug" in said:
                raise ERRORS[said["slug"]].in_field("image", said["message"])
            return said, pixels
        raise UnreadableImage.in_field("image", GIVES_UP)


def bytes_to_read(max_pixels: int) -> int:
    """What one may need for the largest picture that is let in, of the format that takes most."""
    return BESIDE_PIXELS + int(4 * max_pixels * max(FULL_COPIES.values()))


class _Reader:
    """One such process, as its parent sees it."""

    def __init__(self, max_bytes: int) -> None:
        """Raises Overloaded where the machine starts no more processes."""
        modules = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        # Threads of numpy's own would reserve gigabytes of addresses on a machine with many cores.
        variables = {"PYTHONPATH": modules, "OPENBLAS_NUM_THREADS": "1", **thread_variables(1, {})}
        command = [sys.executable, "-P", "-m", "tuwen.pictures.apart", str(max_bytes), str(LONGEST_S)]
        pipe = subprocess.PIPE
        try:
            self._process = started_ordinarily(
                # In a session of its own: a Ctrl-C in the terminal reaches us alone.
                lambda: subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, env=os.environ | variables, start_new_session=True
                )
            )
        except (OSError, RuntimeError) as error:  # RuntimeError: not even a thread
            raise Overloaded("No process can be started to read the picture; try again in a second.") from error

    def ask(self, what: int, side: int, trim: bool, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Raises OSError or EOFError where it ends before it has answered, and is ended where it takes too long."""
        assert self._process.stdin is not None, "they are pipes"
        assert self._process.stdout is not None, "they are pipes"
        patience = threading.Timer(LONGEST_WAIT_S, self._process.kill)
        patience.start()
        try:
            self._process.stdin.write(REQUEST.pack(what, side, trim, len(data)))
            self._process.stdin.write(data)
            self._process.stdin.flush()
            said_bytes, pixel_bytes = ANSWER.unpack(_exactly(self._process.stdout, ANSWER.size))
            said = json.loads(_exactly(self._process.stdout, said_bytes))
            return said, _exactly(self._process.stdout, pixel_bytes)
        finally:
            patience.cancel()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)


def _stop(readers: Sequence[_Reader]) -> None:
    for reader in readers:
        reader.stop()


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # what was not sent any more
        return


def _exactly(pipe: BinaryIO | Any, size: int) -> bytes:
    data = bytes(pipe.read(size))
    if len(data) < size:
        raise EOFError
    return data


# --- In that process --------------------------------------------------------------------------------------------------


def main() -> None:
    _limit_memory(int(sys.argv[1]))
    longest_s = int(sys.argv[2])
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever a library says does not go between the answers
        while select.select([requests], [], [], IDLE_S)[0]:
            head = requests.read(REQUEST.size)
            if len(head) < REQUEST.size:  # the parent has ended
                return
            _limit_processor_time(longest_s)
            what, side, trim, size = REQUEST.unpack(head)
            said, pixels = _answer(what, side, bool(trim), requests.read(size))
            text = json.dumps(said).encode()
            answers.write(ANSWER.pack(len(text), len(pixels)) + text + pixels)
            answers.flush()


def _limit_memory(further_bytes: int) -> None:
    """Of addresses; what Python has reserved already is not the file's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere than on Linux the limit does not hold
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + further_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_processor_time(further_s: int) -> None:
    """What earlier files took is not this one's. At its end the system ends this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time()) + further_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _answer(what: int, side: int, trim: bool, data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        if what == HEADER:
            return read_header(data, side)._asdict(), b""
        decoded = decode(data, side=side, trim=trim)
    except (UnreadableImage, UnsupportedImageType, ImageTooLarge) as error:
        return {"slug": error.slug, "message": error.errors[0].message}, b""
    except MemoryError:
        return {"slug": UnreadableImage.slug, "message": GIVES_UP}, b""
    said = decoded._asdict()
    image = said.pop("image")
    return said | {"size": image.size}, image.tobytes()


if __name__ == "__main__":
    main()
