"""What the containers' health checks run. Exit code 0 is healthy.

`http PORT PATH`: this container's server answers 200. Goes past any proxy that the environment names.
`loops`: each of its background loops has been heard of as it promised: its file in HEARTBEAT_DIR has that moment as its
time of change. More checks may follow it; then all must pass.
"""

import http.client
import os
import sys
import time
from http import HTTPStatus
from pathlib import Path

TIMEOUT_S = 5.0


def answers_ok(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def silent_loops(folder: Path) -> list[str]:
    """Also what is wrong where there is no loop at all."""
    files = list(folder.glob("*.loop"))
    silent = [file.stem for file in files if file.stat().st_mtime < time.time()]
    return silent if files else [f"there is none in {folder}"]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["http", port, path]:
            return 0 if answers_ok(int(port), path) else 1
        case ["loops", *others]:
            silent = silent_loops(Path(os.environ["HEARTBEAT_DIR"]))
            if silent:
                print("Not heard of in time:", ", ".join(silent))
                return 1
            return main(others) if others else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
