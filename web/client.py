"""The pages' way to the API: typed calls over HTTP, and one exception for whatever goes wrong. Nothing of Streamlit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from clients.patience import PatientClient
from data_models import (
    CreatedProduct,
    GenerateRequest,
    GenerationJob,
    Health,
    ImportJob,
    ImportMode,
    IndexStatus,
    Problem,
    Product,
    ProductFacets,
    ProductPage,
    Retried,
    SearchFilters,
    SearchMode,
    SearchResponse,
    SearchSort,
)

Answer = TypeVar("Answer", bound=BaseModel)

WEIGHT_OF_WORDS = 0.6  # beside a picture, docs/api.md
CONNECT_TIMEOUT_S = 5.0
# An upload of 32 MiB over a slow line, or a search that waits behind others.
ANSWER_TIMEOUT_S = 60.0
PATIENCE_S = 10.0  # somebody looks at the page meanwhile


class ApiError(Exception):
    """The API refused or failed. `detail` is its own sentence, made to be shown, `code` what programs know that by;
    `status` its HTTP status."""

    def __init__(self, detail: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code


class ApiUnreachable(ApiError):
    """Nothing answered at the address. `detail` says what the connection met."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"No API answers at {address} (setting API_URL): {reason}")
        self.address = address
        self.reason = reason


class ApiClient:
    """One connection pool to one API; safe to share between threads."""

    def __init__(self, address: str, language: str, key: str = "") -> None:
        """`language`: in which the API words its errors. `key`: the API key; empty: none."""
        self.address = address
        self.answers_for = f"{address} {hashlib.sha256(key.encode()).hexdigest()}"
        """By which to keep answers: another key may see others."""
        # The API is a neighbour: a proxy that the environment names for the internet is never on the way to it.
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        headers = {"Accept-Language": language} | ({"X-API-Key": key} if key else {})
        self._http = PatientClient(patience_s=PATIENCE_S, timeout=timeout, trust_env=False, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Health:
        """Also while a part is down: then /health answers 503, with the same body."""
        response = self._send("GET", "/health")
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            self._require_success(response)
        return self._parsed(Health, response)

    def list_products(
        self,
        *,
        page: int = 1,
        page_size: int = 20,
        text: str = "",
        index_status: IndexStatus | None = None,
        group_id: str = "",
        filters: SearchFilters | None = None,
        sort: str = "-product_id",
    ) -> ProductPage:
        """`text` is a part of the title, or a whole sku or group_id."""
        params = _selection(text, index_status, group_id, filters) | {"page": page, "page_size": page_size}
        return self._parsed(ProductPage, self._succeed("GET", "/product/list", params=params | {"sort": sort}))

    def product_facets(
        self,
        names: Sequence[str],
        *,
        text: str = "",
        index_status: IndexStatus | None = None,
        filters: SearchFilters | None = None,
    ) -> ProductFacets:
        """Of what `list_products` lists."""
        params = _selection(text, index_status, "", filters) | {"facets": list(names)}
        return self._parsed(ProductFacets, self._succeed("GET", "/product/facets", params=params))

    def product(self, product_id: int) -> Product:
        return self._parsed(Product, self._succeed("GET", f"/product/{product_id}"))

    def create_product(
        self, fields: Mapping[str, str], image: bytes | None, further: Sequence[bytes] = ()
    ) -> CreatedProduct:
        """A missing picture goes to the API as well: it says so in the same words as to everybody."""
        return self._parsed(CreatedProduct, self._succeed("POST", "/product", files=_form(fields, image, further)))

    def change_product(self, product_id: int, fields: Mapping[str, str], image: bytes | None) -> Product:
        """Only what is in `fields` changes; an empty value clears its field."""
        return self._parsed(Product, self._succeed("PATCH", f"/product/{product_id}", files=_form(fields, image)))

    def add_picture(self, product_id: int, image: bytes) -> Product:
        return self._parsed(Product, self._succeed("POST", f"/product/{product_id}/image", files=_form({}, image)))

    def remove_picture(self, product: Product, image_id: str) -> Product:
        return self._parsed(Product, self._succeed("DELETE", f"/product/{product.product_id}/image/{image_id}"))

    def order_pictures(self, product: Product, image_ids: Sequence[str]) -> Product:
        order = {"image_ids": list(image_ids)}
        return self._parsed(Product, self._succeed("PUT", f"/product/{product.product_id}/images", json=order))

    def reindex_product(self, product_id: int) -> Product:
        return self._parsed(Product, self._succeed("POST", f"/product/{product_id}/reindex"))

    def retry_failed(self) -> Retried:
        return self._parsed(Retried, self._succeed("POST", "/product/retry-failed"))

    def import_file(
        self,
        name: str,
        file: IO[bytes],
        mode: ImportMode,
        *,
        mask_personal_data: bool,
        dry_run: bool,
        allow_deletes_percent: float | None,
    ) -> ImportJob:
        """`allow_deletes_percent`: with `replace_all` alone."""
        params: dict[str, str | float] = {"mode": mode, "mask_personal_data": mask_personal_data, "dry_run": dry_run}
        if allow_deletes_percent is not None and mode == "replace_all":
            params["allow_deletes_percent"] = allow_deletes_percent
        response = self._succeed("POST", "/product/import", params=params, files={"file": (name, file)})
        return self._parsed(ImportJob, response)

    def import_job(self, job_id: int) -> ImportJob:
        return self._parsed(ImportJob, self._succeed("GET", f"/product/import/{job_id}"))

    def import_errors(self, job_id: int) -> bytes:
        """CSV."""
        return self._succeed("GET", f"/product/import/{job_id}/errors").content

    def cancel_import(self, job_id: int) -> None:
        self._succeed("POST", f"/product/import/{job_id}/cancel")

    def delete_product(self, product_id: int) -> None:
        self._succeed("DELETE", f"/product/{product_id}")

    def search(
        self,
        mode: SearchMode,
        *,
        text: str | None = None,
        image: bytes | None = None,
        product_id: int | None = None,
        words: str = "",
        top_k: int = 10,
        offset: int = 0,
        filters: SearchFilters | None = None,
        facets: Sequence[str] = (),
        sort: SearchSort | None = None,
        by_group: bool = False,
        fold: bool = False,
        as_of: datetime | None = None,
        relevance: bool = False,
        explain: bool = False,
    ) -> SearchResponse:
        query: dict[str, Any] = {"mode": mode.value, "top_k": str(top_k), "offset": str(offset)}
        if facets:
            query["facets"] = json.dumps(list(facets))
        if sort is not None:
            query["sort"] = sort
        if by_group:
            query["group_by"] = "group_id"
        if fold:
            query["fold"] = "true"
        if as_of is not None:
            query["as_of"] = as_of.isoformat()
        if relevance:
            query["relevance"] = "true"
        if explain:
            query["explain"] = "true"
        if text is not None:
            query["text"] = text
        if words:
            stored = [{"product_id": product_id}] if product_id is not None else []
            query["terms"] = json.dumps([*stored, {"text": words, "weight": WEIGHT_OF_WORDS}], ensure_ascii=False)
        elif product_id is not None:
            query["product_id"] = str(product_id)
        if filters is not None:
            query["filters"] = _as_json(filters)
        return self._parsed(SearchResponse, self._succeed("POST", "/search", files=_form(query, image)))

    def generate(self, request: GenerateRequest) -> GenerationJob:
        """The job as it was taken; the request may hold what the API will refuse."""
        body = request.model_dump(exclude_none=True, warnings=False)
        return self._parsed(GenerationJob, self._succeed("POST", "/generate", json=body))

    def generation(self, job_id: int) -> GenerationJob:
        return self._parsed(GenerationJob, self._succeed("GET", f"/generate/{job_id}"))

    def cancel_generation(self, job_id: int) -> None:
        self._succeed("DELETE", f"/generate/{job_id}")

    def image(self, path: str) -> bytes:
        """The bytes behind a product's `image_url` or `thumbnail_url`."""
        return self._succeed("GET", path).content

    def _succeed(self, method: str, path: str, **request: Any) -> httpx.Response:
        response = self._send(method, path, **request)
        self._require_success(response)
        return response

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, f"{self.address}{path}", **request)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiUnreachable(self.address, str(error) or type(error).__name__) from error

    def _require_success(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            said = f"{response.request.method} {response.url} answered {response.status_code} without saying why."
            raise ApiError(said, response.status_code) from error
        detail = problem.detail
        if response.is_server_error and problem.request_id:  # by which whoever runs the service finds it in the log
            detail = f"{detail} (X-Request-ID: {problem.request_id})"
        raise ApiError(detail, response.status_code, problem.code)

    def _parsed(self, model: type[Answer], response: httpx.Response) -> Answer:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            message = f"What answers at {self.address} is not this API, or another version of it; check API_URL."
            raise ApiError(message, response.status_code) from error


def _selection(
    text: str, index_status: IndexStatus | None, group_id: str, filters: SearchFilters | None
) -> dict[str, str | int | list[str]]:
    conditions = {"q": text, "index_status": index_status, "group_id": group_id}
    given: dict[str, str | int | list[str]] = {name: value for name, value in conditions.items() if value}
    return given if filters is None else given | {"filters": _as_json(filters)}


def _as_json(filters: SearchFilters) -> str:
    return filters.model_dump_json(exclude_defaults=True)


def _form(
    fields: Mapping[str, str], image: bytes | None, further: Sequence[bytes] = ()
) -> list[tuple[str, tuple[str | None, str | bytes]]]:
    """Multipart whether or not there is a picture; a part without a file name is a plain field."""
    form: list[tuple[str, tuple[str | None, str | bytes]]] = [(name, (None, value)) for name, value in fields.items()]
    if image is not None:
        form.append(("image", ("picture", image)))
    return [*form, *(("images", ("picture", each)) for each in further)]
