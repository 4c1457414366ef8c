"""What the containers' health checks run. Exit code 0 is healthy.

`http PORT PATH`: this container's server answers 200. Goes past any proxy that the environment names.
`connected PORT`: this container holds a TCP connection to that port of another one. The worker serves nothing; what it
does, it does over its connection to Kafka.
"""

import http.client
import sys
from http import HTTPStatus
from pathlib import Path

TIMEOUT_S = 5.0
ESTABLISHED = "01"  # linux/include/net/tcp_states.h


def answers_ok(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_connected_to(port: int, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> bool:
    for table in tables:
        if not Path(table).exists():  # a kernel without IPv6
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            _, _, remote_address, state, *_ = line.split()
            if state == ESTABLISHED and int(remote_address.rpartition(":")[2], 16) == port:
                return True
    return False


def main(arguments: list[str]) -> int:
    match arguments:
        case ["http", port, path]:
            return 0 if answers_ok(int(port), path) else 1
        case ["connected", port]:
            return 0 if is_connected_to(int(port)) else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
