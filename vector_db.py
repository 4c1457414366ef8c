"""Milvus: the schema, insert, search, delete. The only importer of pymilvus; knows of products only their fields.

Calls block; callers on an event loop run them in threads. Works alike on Milvus Lite (a file), Milvus and Zilliz Cloud.
"""

import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import grpc
import numpy as np

# When it is imported, pymilvus puts `.env` into the environment, and reads MILVUS_URI, where a file's path or a wrong
# value ends in a traceback. The value is `tuwen/settings.py`'s to read.
_milvus_uri = os.environ.get("MILVUS_URI")
os.environ["MILVUS_URI"] = ""
try:
    from pymilvus import DataType, Function, FunctionType, MilvusClient
    from pymilvus.exceptions import DataNotMatchException, DataTypeNotMatchException, MilvusException, ParamError
except UnicodeDecodeError as error:
    sys.exit(f"The settings in .env can't be read, which must be UTF-8: {error}")
del os.environ["MILVUS_URI"]
if _milvus_uri is not None:
    os.environ["MILVUS_URI"] = _milvus_uri

from data_models import DEFAULT_SHOP, AttributeFilter, Scalar, SearchMode  # noqa: E402
from tuwen.encoders.base import Vector  # noqa: E402
from tuwen.errors import (  # noqa: E402
    CollectionGone,
    ConfigurationError,
    MilvusFileInUse,
    VectorDBUnavailable,
    VectorsRejected,
)
from tuwen.folders import require_writable  # noqa: E402
from tuwen.limit_settings import TITLE_COLUMN_LENGTH  # noqa: E402
from tuwen.lite_process import LiteLocked, LiteProcess, LiteRefused, LiteSilent  # noqa: E402
from tuwen.settings import CATEGORY_COLUMN_LENGTH, Settings  # noqa: E402
from tuwen.texts import normalise_text  # noqa: E402

VectorField: TypeAlias = Literal["image_clip_vector", "text_clip_vector", "text_bge_vector"]

# What a search of each mode compares its query with.
VECTOR_FIELDS: Mapping[SearchMode, VectorField] = {
    SearchMode.IMAGE_TO_IMAGE: "image_clip_vector",
    SearchMode.TEXT_TO_TEXT: "text_bge_vector",
    SearchMode.IMAGE_TO_TEXT: "text_clip_vector",
    SearchMode.TEXT_TO_IMAGE: "image_clip_vector",
    SearchMode.HYBRID: "text_bge_vector",  # and others beside it (`tuwen/search/hybrid.py`)
}
# A search for what is like a product has its vector already. Of a model with prompts, titles are compared as titles.
VECTOR_FIELDS_OF_PRODUCT: Mapping[SearchMode, VectorField] = {
    SearchMode.IMAGE_TO_IMAGE: "image_clip_vector",
    SearchMode.TEXT_TO_TEXT: "text_bge_vector",
    SearchMode.IMAGE_TO_TEXT: "image_clip_vector",
    SearchMode.TEXT_TO_IMAGE: "text_clip_vector",
    SearchMode.HYBRID: "text_bge_vector",
}

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

MAX_SEARCH_LIMIT = 16_384  # Milvus's own limit of top-k
# Milvus Lite walks all rows for each query, however few it wants: by 500, 40,000 rows took 80 times two seconds.
ROWS_OF_A_QUERY = 10_000
# More than a segment of Milvus (1 GB by default) has of our rows: HNSW then keeps every row that it comes to.
EXACT_EF = 1_000_000
RANDOM_BITS = 31
KEY_FIELDS = ["product_id", "row_token"]
# What pymilvus's query iterator asks of the server, which otherwise may stop at any `limit` rows.
LOWEST_IDS_FIRST = {"iterator": "True", "reduce_stop_for_best": "True"}
ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
# Milvus counts VARCHAR in bytes; UTF-8 takes up to four for a character.
BYTES_PER_CHARACTER = 4
LONGEST_SHOP_BYTES = 64
LONGEST_CATEGORY_BYTES = CATEGORY_COLUMN_LENGTH * BYTES_PER_CHARACTER
# Invalid parameter, in Milvus Lite and in Milvus; every other failure leaves open whether the same call works later.
REFUSED_CODES = frozenset({6, 1100})
# There is no such collection.
GONE_CODE = 100
# A Milvus Lite that started again has its collections on disk alone, until they are loaded.
NOT_LOADED_CODE = 101
LONG_TIMEOUT_S = 60.0
# After many failures gRPC waits up to two minutes between attempts to connect, and refuses every call meanwhile.
GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 500,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.min_reconnect_backoff_ms": 5000,  # how long one attempt may take
}
# A Milvus Lite that was frozen or busy takes the pings that piled up for an attack, and ends the connection. They are
# not needed: its process is watched, and every call has a deadline.
WITHOUT_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}
QUIET_S = 0.5
# What pymilvus refuses before it asks the server.
CLIENT_REFUSALS = (DataNotMatchException, DataTypeNotMatchException, ParamError)


@dataclass(frozen=True)
class VectorRow:
    """One product's vectors (each of its model's dimension, L2-normalised) and what filters look at."""

    product_id: int
    row_token: int
    image_clip_vector: Vector
    text_clip_vector: Vector
    text_bge_vector: Vector
    image_path: str
    title: str
    category: str | None
    attributes: Mapping[str, Any]
    shop_id: str = DEFAULT_SHOP


class RowKey(NamedTuple):  # a search with candidates hashes thousands
    """What a row in Milvus says of itself. An id alone may be another's: it is given again after a loss."""

    milvus_id: int
    product_id: int
    row_token: int | None
    """None in rows of version 0.2.0."""


class VectorHit(NamedTuple):
    row: RowKey
    score: float
    """Cosine similarity."""


def new_row_token() -> int:
    """Never given twice, in 63 bits: the second in which it was made, and 31 random bits."""
    return (int(time.time()) << RANDOM_BITS) | secrets.randbits(RANDOM_BITS)


def token_made_at(row_token: int) -> datetime:
    return datetime.fromtimestamp(row_token >> RANDOM_BITS, UTC)


class VectorDB:
    """One Milvus address. Connects at the first call, and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: MilvusClient | None = None
        self._is_closed = False
        self._lite = (
            LiteProcess(Path(settings.milvus_address), durable=settings.durable_writes)
            if settings.milvus_is_file
            else None
        )
        self._connect_lock = threading.Lock()
        self._probe_lock = threading.Lock()
        self._silence: str | None = None
        """What the last read met, if it waited in vain."""
        self._silent_at = 0.0
        self.missed_collection = threading.Event()
        """Set when Milvus said that a collection is not there; whoever looks after that clears it."""
        self._timeout_s = settings.milvus_timeout_s
        # Making, loading and dropping a collection takes longer the more there is in it; no search waits for one.
        self._long_timeout_s = max(LONG_TIMEOUT_S, settings.milvus_timeout_s)
        self._write_lock = threading.Lock()  # Milvus Lite wants writes to a collection one after another
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # logs every error that it also raises

    @property
    def is_file(self) -> bool:
        """Milvus Lite's, which only one installation has; a server may be others' as well."""
        return self._settings.milvus_is_file

    def has_collection(self, collection: str) -> bool:
        return bool(self._read(lambda client: client.has_collection(collection, timeout=self._timeout_s)))

    def create_collection(self, collection: str, *, clip_dim: int, text_dim: int) -> None:
        """Create it with all indexes, loaded. Creating one that exists is an error of the caller."""
        schema = MilvusClient.create_schema(auto_id=True, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("image_clip_vector", DataType.FLOAT_VECTOR, dim=clip_dim)
        schema.add_field("text_clip_vector", DataType.FLOAT_VECTOR, dim=clip_dim)
        schema.add_field("text_bge_vector", DataType.FLOAT_VECTOR, dim=text_dim)
        schema.add_field("product_id", DataType.INT64)
        schema.add_field("row_token", DataType.INT64)  # a dynamic field in collections of version 0.2.0
        schema.add_field("image_path", DataType.VARCHAR, max_length=500 * BYTES_PER_CHARACTER)
        schema.add_field(
            "title",
            DataType.VARCHAR,
            max_length=TITLE_COLUMN_LENGTH * BYTES_PER_CHARACTER,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "jieba"},
        )
        schema.add_field("category", DataType.VARCHAR, max_length=LONGEST_CATEGORY_BYTES, nullable=True)
        # Null: the default shop's. A dynamic field in collections of earlier versions.
        schema.add_field("shop_id", DataType.VARCHAR, max_length=LONGEST_SHOP_BYTES, nullable=True)
        schema.add_field("title_bm25", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(Function("title_bm25", FunctionType.BM25, ["title"], ["title_bm25"]))
        index = MilvusClient.prepare_index_params()
        index.add_index("title_bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        if not self.is_file:  # Milvus Lite searches without (`tuwen/lite_search.py`)
            for field in ("image_clip_vector", "text_clip_vector", "text_bge_vector"):
                index.add_index(
                    field, self._settings.milvus_index_type, metric_type="COSINE", params=self._hnsw_params()
                )
            for filtered in ("product_id", "category", "shop_id"):  # else each search reads them row by row
                index.add_index(filtered, index_type="INVERTED")

        def create(client: MilvusClient) -> None:
            shards = {} if self.is_file else {"num_shards": self._settings.milvus_shards}
            client.create_collection(collection, schema=schema, timeout=self._long_timeout_s, **shards)
            # Not waited for: there is nothing to index yet, and pymilvus looks only every half second.
            client.create_index(collection, index_params=index, timeout=self._long_timeout_s, sync=False)
            client.load_collection(collection, timeout=self._long_timeout_s)

        self._ask(create)

    def _hnsw_params(self) -> dict[str, int | str]:
        """Malkov and Yashunin, arXiv 1603.09320: more of either number finds more, and takes longer to build."""
        settings = self._settings
        quantized = {"sq_type": "SQ8"} if settings.milvus_index_type == "HNSW_SQ" else {}
        return {"M": settings.milvus_hnsw_m, "efConstruction": settings.milvus_hnsw_ef_construction, **quantized}

    def _ef(self, limit: int) -> int:
        """Doubled until it holds the limit: the pages of one query are mostly cut from one and the same search."""
        ef = self._settings.milvus_search_ef
        while ef < limit:
            ef *= 2
        return ef

    def drop_collection(self, collection: str) -> None:
        self._ask(lambda client: client.drop_collection(collection, timeout=self._long_timeout_s))

    def insert(self, collection: str, rows: Sequence[VectorRow]) -> list[int]:
        """Insert all rows or none; the auto ids come back in the order of the rows. Raises VectorsRejected."""
        data = [_as_entity(row) for row in rows]
        result = self._write(lambda client: client.insert(collection, data, timeout=self._timeout_s))
        return [int(milvus_id) for milvus_id in result["ids"]]

    def delete(self, collection: str, milvus_ids: Sequence[int], product_ids: Sequence[int]) -> None:
        """Delete those of these rows that are of these products; rows that are gone already are no error."""
        if milvus_ids:
            delete = self._delete_from_lite if self.is_file else self._delete_from_server
            call = partial(delete, collection=collection, milvus_ids=milvus_ids, product_ids=product_ids)
            self._write(lambda client: self._load_if_needed(client, collection, call))

    def _delete_from_server(
        self, client: MilvusClient, *, collection: str, milvus_ids: Sequence[int], product_ids: Sequence[int]
    ) -> None:
        condition = f"id in {list(milvus_ids)} and product_id in {list(product_ids)}"
        client.delete(collection, filter=condition, timeout=self._timeout_s)

    def _delete_from_lite(
        self, client: MilvusClient, *, collection: str, milvus_ids: Sequence[int], product_ids: Sequence[int]
    ) -> None:
        """By ids alone, since it would walk all its rows for the products: 0.15 s at 100,000. Under the write lock of
        the one process that has its file, no row becomes another's between the two calls."""
        rows = client.get(collection, ids=list(milvus_ids), output_fields=KEY_FIELDS, timeout=self._timeout_s)
        products = set(product_ids)
        if mine := [row["id"] for row in rows if int(row["product_id"]) in products]:
            client.delete(collection, ids=mine, timeout=self._timeout_s)

    def search(
        self,
        collection: str,
        field: VectorField,
        vectors: Sequence[Vector],
        *,
        limit: int,
        filter_expression: str = "",
        exact: bool = False,
    ) -> list[list[VectorHit]]:
        """For each vector the nearest rows, best first: in one call, which costs little more than one vector's.

        Exact on Milvus Lite, where rows of one distance come in the order of their ids; elsewhere as HNSW finds them,
        whose graph `exact` walks as far as it leads.
        """
        params = {"metric_type": "COSINE", "params": {"ef": EXACT_EF if exact else self._ef(limit)}}
        results = self._read_loaded(
            collection,
            lambda client: client.search(
                collection,
                data=list(vectors),
                anns_field=field,
                limit=limit,
                filter=filter_expression,
                search_params=params,
                output_fields=KEY_FIELDS,
                timeout=self._timeout_s,
            ),
        )
        return [_vector_hits(hits) for hits in results]

    def stored_vectors(
        self, collection: str, fields: Sequence[VectorField], rows: Collection[RowKey]
    ) -> dict[RowKey, dict[VectorField, Vector]]:
        """These rows' own; without those that there are not, or that are another's by now. Bounded consistency."""
        found = self._read_loaded(
            collection,
            lambda client: client.get(
                collection,
                ids=[row.milvus_id for row in rows],
                output_fields=[*KEY_FIELDS, *fields],
                timeout=self._timeout_s,
            ),
        )
        vectors = {
            _key(each["id"], each): {field: np.array(each[field], np.float32) for field in fields} for each in found
        }
        return {row: vectors[row] for row in rows if row in vectors}

    def existing_rows(self, collection: str, milvus_ids: Sequence[int], *, strong: bool = False) -> set[RowKey]:
        """Those of these ids that there are, and whose rows they are now. Only `strong` sees all that was ever written;
        otherwise the collection's consistency holds (bounded), and a row of the last seconds may be missing."""
        consistency = {"consistency_level": "Strong"} if strong else {}
        rows = self._read_loaded(
            collection,
            lambda client: client.get(
                collection, ids=list(milvus_ids), output_fields=KEY_FIELDS, timeout=self._timeout_s, **consistency
            ),
        )
        return {_key(row["id"], row) for row in rows}

    def iterate_rows(self, collection: str, *, after: int = -1, batch_size: int = 1000) -> Iterator[list[RowKey]]:
        """All rows of a collection with a higher id, in the order of their ids, in batches; bounded consistency."""
        while True:
            rows = self._page_of_rows(collection, after, ROWS_OF_A_QUERY)
            if not rows:
                return
            yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
            after = rows[-1].milvus_id

    def _page_of_rows(self, collection: str, after: int, limit: int) -> list[RowKey]:
        # Not pymilvus's own query_iterator: it describes the collection first, without a deadline.
        rows = self._read_loaded(
            collection,
            lambda client: client.query(
                collection,
                filter=f"id > {after}",
                output_fields=KEY_FIELDS,
                limit=limit,
                timeout=self._timeout_s,
                **LOWEST_IDS_FIRST,
            ),
        )
        return sorted((_key(row["id"], row) for row in rows), key=lambda row: row.milvus_id)

    def check(self) -> None:
        self._read(lambda client: client.list_collections(timeout=self._timeout_s))

    def close(self) -> None:
        with self._connect_lock:
            self._is_closed = True
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._lite is not None:
                self._lite.stop()

    def _read_loaded(self, collection: str, operation: Callable[[MilvusClient], Result]) -> Result:
        """Milvus reads only from a loaded collection."""
        return self._read(lambda client: self._load_if_needed(client, collection, operation))

    def _load_if_needed(
        self, client: MilvusClient, collection: str, operation: Callable[[MilvusClient], Result]
    ) -> Result:
        try:
            return operation(client)
        except MilvusException as error:
            if error.code != NOT_LOADED_CODE:
                raise
            client.load_collection(collection, timeout=self._long_timeout_s)
            return operation(client)

    def _read(self, operation: Callable[[MilvusClient], Result]) -> Result:
        with self._one_at_a_time_after_a_silence():
            started = time.monotonic()
            try:
                result = self._ask(operation)
            except VectorDBUnavailable as error:
                if time.monotonic() - started >= self._timeout_s / 2:  # what fails at once holds nobody up
                    self._silence, self._silent_at = error.detail, time.monotonic()
                raise
            except VectorsRejected:
                self._silence = None
                raise
            self._silence = None
            return result

    def _write(self, operation: Callable[[MilvusClient], Result]) -> Result:
        """One after another. What writes meet says nothing of reads."""
        if not self._write_lock.acquire(timeout=self._long_timeout_s):
            raise VectorDBUnavailable("Milvus does not answer (MILVUS_URI): an earlier write is still under way.")
        try:
            return self._ask(operation)
        finally:
            self._write_lock.release()

    def _ask(self, operation: Callable[[MilvusClient], Result]) -> Result:
        try:
            return operation(self._connected())
        except MilvusException as error:
            if error.code == GONE_CODE:
                self.missed_collection.set()
                raise CollectionGone(f"Milvus has lost a collection (MILVUS_URI): {error.message}") from error
            if isinstance(error, CLIENT_REFUSALS) or error.is_input_error or error.code in REFUSED_CODES:
                raise VectorsRejected(f"Milvus refused: {error.message}") from error
            raise VectorDBUnavailable(f"Milvus does not answer (MILVUS_URI): {error.message}") from error
        except grpc.RpcError as error:  # a deadline that pymilvus lets through as it is
            reason = error.details() if isinstance(error, grpc.Call) else error
            raise VectorDBUnavailable(f"Milvus does not answer (MILVUS_URI): {reason}") from error

    @contextmanager
    def _one_at_a_time_after_a_silence(self) -> Iterator[None]:
        """While Milvus hangs, one call at a time finds out whether it is back; the others are refused at once.

        Without this, calls that queue for threads or locks would wait out one deadline after another. Those that queued
        behind the first have waited for one already: for a moment nobody asks.
        """
        silence = self._silence
        if silence is None:
            yield
            return
        if time.monotonic() - self._silent_at < QUIET_S or not self._probe_lock.acquire(blocking=False):
            raise VectorDBUnavailable(silence)
        try:
            yield
        finally:
            self._probe_lock.release()

    def _connected(self) -> MilvusClient:
        client = self._client
        if client is not None and self._server_runs():
            return client
        if not self._connect_lock.acquire(timeout=self._timeout_s):
            raise VectorDBUnavailable("Milvus does not answer (MILVUS_URI): the connection is still being made.")
        try:
            if self._is_closed:
                raise VectorDBUnavailable("Milvus does not answer (MILVUS_URI): the service is stopping.")
            if self._client is None or not self._server_runs():
                if self._client is not None:
                    self._client.close()
                    self._client = None
                self._client = self._connect(self._address())
            return self._client
        finally:
            self._connect_lock.release()

    def _server_runs(self) -> bool:
        """As far as that is ours to know."""
        return self._lite is None or self._lite.is_running

    def _address(self) -> str:
        """Milvus Lite's once it runs; never the file's path, which pymilvus would open in this process."""
        if self._lite is None:
            return self._settings.milvus_address
        if not self._lite.is_running:
            self._start_lite(self._lite)
        return self._lite.address

    def _connect(self, address: str) -> MilvusClient:
        return MilvusClient(
            uri=address,
            token=self._settings.milvus_token.get_secret_value(),
            server_pem_path=str(self._settings.milvus_ca_file or ""),  # empty: the authorities that gRPC knows
            timeout=self._timeout_s,
            dedicated=True,  # pymilvus would share one of this address, whatever its options
            grpc_options=GRPC_OPTIONS | (WITHOUT_PINGS if self.is_file else {}),
        )

    def _start_lite(self, lite: LiteProcess) -> None:
        """Raises ConfigurationError where it can't have its file; once it had it, VectorDBUnavailable."""
        setting = self._settings.source_of("milvus_uri")
        if lite.address:
            logger.error("The process of Milvus Lite has ended; it is started again")
        else:
            require_writable(lite.path, setting)
            _spare_loopback_the_proxy()
        try:
            lite.start()
        except LiteLocked as error:
            reason = (
                f"The Milvus Lite file {lite.path} is open already: another process has it. Stop that one (after a "
                f"kill, tuwen.lite_process), set another {setting}, or name a Milvus server in MILVUS_URI, as several "
                "API processes need."
            )
            raise _not_started(lite, reason, MilvusFileInUse) from error
        except LiteRefused as error:
            reason = (
                f"The Milvus Lite file {lite.path} can't be read ({error}). If it is damaged, move it away: what was "
                f"in it is made again from the database. Else set another {setting}."
            )
            raise _not_started(lite, reason) from error
        except LiteSilent as error:
            raise _not_started(lite, f"The process of Milvus Lite {error}; the log says more.") from error


def _not_started(
    lite: LiteProcess, reason: str, at_start: type[ConfigurationError] = ConfigurationError
) -> ConfigurationError | VectorDBUnavailable:
    return VectorDBUnavailable(reason) if lite.address else at_start(reason)


def _spare_loopback_the_proxy() -> None:
    """gRPC would send even the connection to Milvus Lite, on this machine, to the proxy of a company's network."""
    name = "no_grpc_proxy"  # in small letters alone
    others = os.environ.get(name) or os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ[name] = ",".join(filter(None, [others, "127.0.0.1", "localhost"]))


def filter_expression(
    *,
    categories: Sequence[str] = (),
    categories_not: Sequence[str] = (),
    has_category: bool | None = None,
    attributes: Mapping[str, Scalar | AttributeFilter] | None = None,
    shop_id: str | None = None,
) -> str:
    """A Milvus boolean expression. Every value is written as a literal, so none can break out of its place."""
    parts = []
    if shop_id is not None:  # null as a column, and as a dynamic field that is missing
        parts.append("shop_id is null" if shop_id == DEFAULT_SHOP else f"shop_id == {_literal(shop_id)}")
    if categories:
        parts.append(f"category in {_categories(categories)}")
    if categories_not:
        parts.append(f"(category is null or not (category in {_categories(categories_not)}))")
    if has_category is not None:
        parts.append("category is not null" if has_category else "category is null")
    for key, value in (attributes or {}).items():
        path = f"attributes[{_literal(key)}]"
        if isinstance(value, AttributeFilter):
            parts += _conditions(path, value)
        else:
            parts.append(f"{path} == {_literal(value)}")
    return " and ".join(parts)


def _conditions(path: str, asked: AttributeFilter) -> Iterator[str]:
    """In what Milvus and Milvus Lite read alike: `in` takes no path there, or no values of several kinds here."""
    if asked.any_of is not None:
        yield f"({_is_one_of(path, asked.any_of)})"
    if asked.none_of is not None:
        yield f"(not (exists {path}) or not ({_is_one_of(path, asked.none_of)}))"
    if asked.min is not None:
        yield f"{path} >= {_literal(asked.min)}"
    if asked.max is not None:
        yield f"{path} <= {_literal(asked.max)}"
    if asked.contains_any is not None:
        yield f"json_contains_any({path}, {_list(asked.contains_any)})"
    if asked.contains_all is not None:
        yield f"json_contains_all({path}, {_list(asked.contains_all)})"
    if asked.is_set is not None:
        yield f"(exists {path})" if asked.is_set else f"(not (exists {path}))"


def _is_one_of(path: str, values: Sequence[Scalar]) -> str:
    return " or ".join(f"{path} == {_literal(value)}" for value in values)


def _list(values: Sequence[Scalar]) -> str:
    return f"[{', '.join(map(_literal, values))}]"


def _categories(categories: Sequence[str]) -> str:
    """As they are typed, too: so they stand in rows that earlier versions made."""
    return _list(list(dict.fromkeys(each for typed in categories for each in (typed, _comparable_category(typed)))))


def _comparable_category(category: str) -> str:
    return normalise_text(category)[:CATEGORY_COLUMN_LENGTH]


def _literal(value: Scalar) -> str:
    """Escaped as little as must be: of JSON's escapes Milvus Lite knows these alone; the rest both take as it is."""
    return f'"{value.translate(ESCAPES)}"' if isinstance(value, str) else json.dumps(value)


def _vector_hits(hits: Any) -> list[VectorHit]:
    """Of one vector, as pymilvus has them: a list of dicts, whose own way to a key takes ten times a dict's."""
    entities = (dict.__getitem__(hit, "entity") for hit in hits)
    found = zip(hits.ids, hits.distances, entities, strict=True)
    return [VectorHit(_key(milvus_id, entity), score) for milvus_id, score, entity in found]


def _key(milvus_id: object, entity: Mapping[str, Any]) -> RowKey:
    token = entity.get("row_token")
    return RowKey(int(str(milvus_id)), int(entity["product_id"]), None if token is None else int(token))


def _as_entity(row: VectorRow) -> dict[str, Any]:
    return {
        "product_id": row.product_id,
        "row_token": row.row_token,
        "image_clip_vector": row.image_clip_vector,
        "text_clip_vector": row.text_clip_vector,
        "text_bge_vector": row.text_bge_vector,
        "image_path": row.image_path,
        "title": normalise_text(row.title)[:TITLE_COLUMN_LENGTH],
        "category": None if row.category is None else _comparable_category(row.category),
        "attributes": dict(row.attributes),
        **({} if row.shop_id == DEFAULT_SHOP else {"shop_id": row.shop_id}),
    }
