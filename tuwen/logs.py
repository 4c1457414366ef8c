"""What a log line looks like: with the request that it is about, and without what callers send in confidence."""

import logging

from tuwen.request_ids import shown_request_ids

FORMAT = "%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s"
SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access")
# At DEBUG they show headers: signatures and tokens of S3, cookies of hosts that pictures are fetched of.
CONFIDENTIAL = ("aiobotocore", "botocore", "httpcore")
QUERY = 2  # where a line of uvicorn's access log has path and query


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        request_ids = shown_request_ids()
        record.request = f" [{request_ids}]" if request_ids else ""
        return super().format(record)


def configure_logging(level: str) -> None:
    """Of this process; a no-op where it is done."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
    for name in CONFIDENTIAL:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level]))


def configure_server_logging(*, access_log: bool) -> None:
    """The web server's lines look like ours, and its access log has no query, in which anything may stand."""
    for name in SERVER_LOGGERS:
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = True
    access = logging.getLogger("uvicorn.access")
    access.propagate = access_log
    access.addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple) and len(record.args) > QUERY:
        before, path, after = record.args[:QUERY], str(record.args[QUERY]), record.args[QUERY + 1 :]
        record.args = (*before, path.partition("?")[0], *after)
    return True
