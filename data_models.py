"""The shapes that cross a process border: HTTP requests and responses, and queue events. Nothing else."""

import math
import unicodedata
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PlainSerializer,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuwen.limit_settings import RATE_LIMITS_LENGTH, TITLE_COLUMN_LENGTH, RateLimits
from tuwen.settings import (
    CATEGORY_COLUMN_LENGTH,
    GROUP_COLUMN_LENGTH,
    MAX_GUIDANCE,
    SKU_COLUMN_LENGTH,
)
from tuwen.texts import canonical_text

# Milvus ids and JavaScript: an INT64 auto id is beyond 2**53, where a browser's JSON.parse starts to round.
Int64AsString = Annotated[int, PlainSerializer(str, return_type=str)]
PROMPT_MAX_LENGTH = 1000
MAX_DEPTH = 20  # of attributes: MariaDB takes 32 levels of JSON, the object around them and its own included; MySQL 100
MAX_BATCH_ROWS = 1000
MAX_IMAGES = 9  # of a product
MAX_FACETS = 10
MAX_BOOSTS = 5
ROUNDING = 1e-9  # 0.1 three times is more than 0.3
ATTRIBUTE_FACET = "attributes."  # and the attribute
ATTRIBUTE_NAMES_FACET = "attributes"
Price = Annotated[
    Decimal,
    Field(ge=0, max_digits=12, decimal_places=2),
    AfterValidator(abs),  # -0 is 0
    PlainSerializer(float, return_type=float, when_used="json"),
]


class PictureFormat(NamedTuple):
    name: str
    extensions: tuple[str, ...]
    """The first is the one that the store uses."""
    media_type: str
    browsers_show: bool = True
    """What some browser does not is served as another file, see `shown_path`."""


# Pictures that are accepted, by Pillow's name of their format.
PICTURE_FORMATS = {
    "JPEG": PictureFormat("JPEG", ("jpg", "jpeg", "jfif", "jpe"), "image/jpeg"),
    "PNG": PictureFormat("PNG", ("png",), "image/png"),
    "WEBP": PictureFormat("WebP", ("webp",), "image/webp"),
    "GIF": PictureFormat("GIF", ("gif",), "image/gif"),
    "BMP": PictureFormat("BMP", ("bmp",), "image/bmp"),
    "AVIF": PictureFormat("AVIF", ("avif",), "image/avif"),
    "HEIF": PictureFormat("HEIC", ("heic", "heif", "hif"), "image/heic", browsers_show=False),
    "TIFF": PictureFormat("TIFF", ("tif", "tiff"), "image/tiff", browsers_show=False),
    "JPEG2000": PictureFormat("JPEG 2000", ("jp2", "j2k", "jpf", "jpx"), "image/jp2", browsers_show=False),
}
*_most, _last = (each.name for each in PICTURE_FORMATS.values())
PICTURE_FORMATS_IN_WORDS = f"{', '.join(_most)} or {_last}"


def _one_clean_line(text: str) -> str:
    # Control characters (Unicode's Cc) and lone surrogates (Cs) can't be shown, and not every store takes them.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("has line breaks or other control characters; take them out")
    return _visible(text)


def _visible(text: str) -> str:
    if not canonical_text(text):
        raise ValueError("has nothing that can be seen; write it, or leave it out")
    return text


def _short_enough(sku: str) -> str:
    if len(canonical_text(sku)) > SKU_COLUMN_LENGTH:
        raise ValueError(f"has over {SKU_COLUMN_LENGTH} characters when ㌢ is written as センチ; shorten it")
    return sku


def _storable(value: JsonValue, depth: int = 0) -> JsonValue:
    """What the database and Milvus both take as JSON: Unicode, finite numbers, integers of 64 bits, few levels."""
    if depth > MAX_DEPTH and isinstance(value, list | dict):
        raise ValueError(f"nest over {MAX_DEPTH} lists and objects in each other; flatten them")
    if isinstance(value, str) and any(unicodedata.category(character) == "Cs" for character in value):
        raise ValueError("has characters that are not Unicode (lone surrogates)")
    if isinstance(value, str) and "\0" in value:  # where SQLite's JSON functions end a text
        raise ValueError("has control characters; take them out")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("has an integer of more than 64 bits; write it as a text")
    for part in (
        (*value.keys(), *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _storable(part, depth + 1)
    return value


def _storable_text(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" for character in text):
        raise ValueError("has control characters; take them out")
    return text


def _no_boolean(value: object) -> object:
    """For fields that are numbers: Python takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a valid number")  # noqa: TRY004  # of which pydantic makes an error of the field
    return value


def _name_of_facet(name: str) -> str:
    if name not in ("category", "price", ATTRIBUTE_NAMES_FACET) and not name.startswith(ATTRIBUTE_FACET):
        raise ValueError("is no facet; there are category, price, attributes and attributes.NAME")
    return _storable_name(name)


def _storable_name(name: str) -> str:
    _storable(name)
    return name


def _storable_object(attributes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _storable(attributes)
    return attributes


Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_COLUMN_LENGTH),
    AfterValidator(_one_clean_line),
]
Sku = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=SKU_COLUMN_LENGTH),
    AfterValidator(_one_clean_line),
    AfterValidator(_short_enough),
]
Category = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=CATEGORY_COLUMN_LENGTH),
    AfterValidator(_one_clean_line),
]
Attributes = Annotated[dict[str, JsonValue], AfterValidator(_storable_object)]
GroupId = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=GROUP_COLUMN_LENGTH),
    AfterValidator(_one_clean_line),
    AfterValidator(_short_enough),
    AfterValidator(canonical_text),  # products that are of one group have the very same
]
GROUP_DESCRIPTION = "The same for all variants of one product (SPU)."
IndexStatus = Literal["pending", "indexed", "failed"]


Scalar = str | int | float | bool
MAX_FILTER_VALUES = 100
MAX_ATTRIBUTE_VALUES = 300  # of all conditions of a search: Milvus reads each in its expression
SomeScalars = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_FILTER_VALUES)]
SomeMembers = Annotated[list[StrictStr | StrictInt | StrictFloat], Field(min_length=1, max_length=MAX_FILTER_VALUES)]


class SearchMode(StrEnum):
    """A1 to A4: the first half names the query, the second what is searched. Hybrid is a text for all that texts find:
    titles by meaning and by words, and pictures."""

    IMAGE_TO_IMAGE = "image_to_image"
    TEXT_TO_TEXT = "text_to_text"
    IMAGE_TO_TEXT = "image_to_text"
    TEXT_TO_IMAGE = "text_to_image"
    HYBRID = "hybrid"

    @property
    def query_is_image(self) -> bool:
        return self.value.startswith("image_")

    @property
    def finds_titles(self) -> bool:
        return self.value.endswith("_to_text")


class ProductFields(BaseModel):
    """What a caller says about a product, besides its picture."""

    model_config = ConfigDict(extra="forbid")

    title: Title
    sku: Sku | None = None
    category: Category | None = None
    price: Price | None = None
    attributes: Attributes = {}
    group_id: GroupId | None = Field(None, description=GROUP_DESCRIPTION)


def _without_defaults(schema: dict[str, Any]) -> None:
    """Generated clients send what a document calls a default, which would clear what was to stay."""
    for field in schema["properties"].values():
        field.pop("default", None)


class ProductChanges(BaseModel):
    """A PATCH: what is not set stays; null clears what may be empty."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    title: Title = ""
    sku: Sku | None = None
    category: Category | None = None
    price: Price | None = None
    attributes: Attributes = {}
    group_id: GroupId | None = Field(None, description=GROUP_DESCRIPTION)


class ProblemField(BaseModel):
    field: str
    message: str
    code: str | None = Field(None, description="What is wrong, for programs; null for what is said too seldom.")
    parameters: dict[str, int | str] = Field({}, description="What the message names: a limit, a length.")


class BatchRow(ProductChanges):
    """What of a product, named by its sku, shall be another: what is left out stays, null clears."""

    sku: Sku

    @field_validator("attributes", mode="before", json_schema_input_type=Attributes | None)
    @classmethod
    def null_clears(cls, attributes: object) -> object:
        return {} if attributes is None else attributes


class BatchChanges(BaseModel):
    """Each product at most once."""

    model_config = ConfigDict(extra="forbid")

    products: Annotated[list[BatchRow], Field(min_length=1, max_length=MAX_BATCH_ROWS)]


class RowResult(BaseModel):
    row: int = Field(description="Its place in the request, from 0.")
    sku: str | None = Field(description="As it was sent; null where it was no text.")
    status: Literal["changed", "unchanged", "refused"]
    product_id: int | None = None
    version: int | None = Field(None, description="The product's, as it is now.")
    errors: list[ProblemField] = Field([], description="Why it was refused.")


class BatchResult(BaseModel):
    changed: int
    unchanged: int = Field(description="What was sent was there already.")
    refused: int
    rows: list[RowResult]


class ProductImage(BaseModel):
    """One of a product's pictures."""

    image_id: str = Field(description="The SHA-256 of its bytes: the same wherever it stands.")
    position: int = Field(description="1 for the main one.")
    image_url: str
    thumbnail_url: str
    width: int
    height: int
    is_generated: bool = Field(description="The picture's own metadata says that a model drew it.")


ImageId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ImageOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image_ids: Annotated[list[ImageId], Field(min_length=1, max_length=MAX_IMAGES)] = Field(
        description="Each picture of the product once; the first becomes the main one."
    )


class Product(BaseModel):
    product_id: int
    sku: str | None
    title: str
    category: str | None
    price: Price | None
    attributes: dict[str, Any]
    group_id: str | None
    image_url: str
    thumbnail_url: str
    image_width: int
    image_height: int
    image_is_generated: bool = Field(description="The picture's own metadata says that a model drew it.")
    images: list[ProductImage] = Field(description="All its pictures; the first is the main one, the same as above.")
    version: int
    index_status: IndexStatus
    index_error: str | None
    milvus_id: Int64AsString | None = Field(
        description="The id bound in the active collection, as a decimal string: the main picture's, in a hit that of "
        "the picture that matched."
    )
    created_at: AwareDatetime
    updated_at: AwareDatetime
    indexed_at: AwareDatetime | None


JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
# A job that has one of these never changes again.
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})
DuplicateKind = Literal["same_file", "same_picture"]


class Duplicate(BaseModel):
    """Another product of the same shop with the same main picture."""

    product_id: int
    sku: str | None
    title: str
    thumbnail_url: str
    kind: DuplicateKind = Field(
        description="`same_file`: the very bytes. `same_picture`: saved anew, scaled, cropped a little, or with a mark."
    )
    similarity: float = Field(description="Of the two pictures laid upon each other; 1: the same.")
    vector_similarity: float | None = Field(
        None, description="Cosine of their CLIP vectors; null where it was not looked at, or one is still to be made."
    )


class CreatedProduct(Product):
    duplicates: list[Duplicate] = Field(
        description="Products that had this picture already, 20 at most; the nearest first."
    )


class ProductDuplicates(BaseModel):
    items: list[Duplicate] = Field(description="20 at most; the nearest first.")


class DuplicatesJob(BaseModel):
    """A report of all products with the same picture."""

    job_id: int
    status: JobStatus
    status_url: str
    pairs_url: str
    progress: float = Field(ge=0, le=1)
    products: int = Field(description="Looked at so far.")
    pairs: int = Field(description="Found so far.")
    error: str | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class ProductPage(BaseModel):
    items: list[Product]
    total: int
    page: int
    page_size: int


FacetName = Annotated[
    str,
    StringConstraints(max_length=500),
    AfterValidator(_name_of_facet),
]


class FacetValue(BaseModel):
    value: Scalar = Field(description="Of a category, as one of its products has it typed.")
    count: int = Field(description="Products that have it.")
    is_member: bool = Field(False, description="In a list: `contains_any` finds it, and `any_of` does not.")


class FacetRange(BaseModel):
    """Both ends included, as `price_min` and `price_max` are."""

    min: Price
    max: Price
    count: int


class Facet(BaseModel):
    values: list[FacetValue] = Field([], description="The most frequent ones first, at most 50.")
    ranges: list[FacetRange] = Field([], description="Of prices, from the lowest; those that no product has left out.")
    other: int = Field(
        0, description="What `values` leaves out: rarer ones, long texts, objects. Lists count by member."
    )
    missing: int = Field(description="Products that have none.")


class ProductFacets(BaseModel):
    total: int = Field(description="Products that are counted.")
    facets: dict[str, Facet] = Field(description="By name.")


class AttributeFilter(BaseModel):
    """What an attribute's value has to be; of several conditions, all. A text, a number and true are never equal."""

    model_config = ConfigDict(extra="forbid")

    any_of: SomeScalars | None = Field(None, description="One of these.")
    none_of: SomeScalars | None = Field(None, description="None of these; or there is no such attribute.")
    min: StrictInt | StrictFloat | None = Field(None, description="A number from this on.")
    max: StrictInt | StrictFloat | None = Field(None, description="A number up to this one.")
    contains_any: SomeMembers | None = Field(None, description="A list that has one of these.")
    contains_all: SomeMembers | None = Field(None, description="A list that has all of these.")
    is_set: StrictBool | None = Field(None, description="Whether there is such an attribute; null is none.")

    @model_validator(mode="after")
    def asks_for_something(self) -> Self:
        conditions = self.model_dump(exclude_none=True)
        if not conditions:
            raise ValueError(
                "has no condition; give one of any_of, none_of, min, max, contains_any, contains_all, is_set"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


WantedAttribute = Annotated[
    Annotated[Scalar, Tag("value")] | Annotated[AttributeFilter, Tag("conditions")],
    # So that a wrong condition is not said to be no text, no number and no boolean, either.
    Discriminator(lambda wanted: "conditions" if isinstance(wanted, dict | AttributeFilter) else "value"),
]


def _storable_filter(attributes: dict[str, Scalar | AttributeFilter]) -> dict[str, Scalar | AttributeFilter]:
    plain = {
        key: value.model_dump(exclude_none=True) if isinstance(value, AttributeFilter) else value
        for key, value in attributes.items()
    }
    _storable({**plain})
    if sum(_count_values(value) for value in plain.values()) > MAX_ATTRIBUTE_VALUES:
        raise ValueError(f"have over {MAX_ATTRIBUTE_VALUES} values in all their conditions; ask for fewer")
    return attributes


def _count_values(wanted: Scalar | dict[str, Any]) -> int:
    lists = wanted.values() if isinstance(wanted, dict) else ()
    return sum(len(each) if isinstance(each, list) else 1 for each in lists) or 1


class SearchFilters(BaseModel):
    """Which products are meant; of several filters, all."""

    model_config = ConfigDict(extra="forbid")

    category: Annotated[list[Category], Field(max_length=100)] = Field([], description="One of these.")
    category_not: Annotated[list[Category], Field(max_length=100)] = Field(
        [], description="None of these; or there is none."
    )
    has_category: StrictBool | None = Field(None, description="Whether there is one.")
    price_min: Price | None = None
    price_max: Price | None = None
    has_price: StrictBool | None = Field(None, description="Whether there is one.")
    attributes: Annotated[dict[str, WantedAttribute], Field(max_length=20), AfterValidator(_storable_filter)] = {}

    @property
    def has_prices(self) -> bool:
        """Whether it asks for any."""
        return self.price_min is not None or self.price_max is not None or self.has_price is not None

    @model_validator(mode="after")
    def price_range_is_not_empty(self) -> Self:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError("price_min is above price_max")
        return self


class Boost(BaseModel):
    """Lifts a product by `weight` times something from 0 to 1: `value / (value + pivot)` of a number in its
    attributes (none and negative ones: 0), or `0.5 ** (age / half-life)` of how long ago it was created."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    attribute: Annotated[str, StringConstraints(max_length=500), AfterValidator(_storable_name)] | None = Field(
        None, description="Whose value is a number, such as sales. With `pivot`."
    )
    pivot: float | None = Field(None, gt=0, description="The value that gets half of the weight.")
    freshness_half_life_days: float | None = Field(
        None, gt=0, description="In place of an attribute: after so many days half of the weight is left."
    )
    weight: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def is_by_one_thing(self) -> Self:
        if (self.attribute is None) == (self.freshness_half_life_days is None):
            raise ValueError("needs exactly one of: attribute, freshness_half_life_days")
        if (self.attribute is None) != (self.pivot is None):
            raise ValueError("needs a pivot with an attribute, and with that alone")
        return self


def _weights_in_bounds(boosts: list[Boost]) -> list[Boost]:
    if sum(boost.weight for boost in boosts) > 1 + ROUNDING:
        raise ValueError("has weights of over 1 in all; lower them")
    return boosts


SearchSort = Literal["price", "-price", "created_at", "-created_at", "updated_at", "-updated_at"]


def _not_blank(text: str) -> str:
    if not canonical_text(text):
        raise ValueError("is empty; write what to search for")
    return text


QueryText = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=TITLE_COLUMN_LENGTH), AfterValidator(_not_blank)
]
ProductId = Annotated[int, Field(ge=1, lt=2**63), BeforeValidator(_no_boolean)]
MAX_TERMS, LEAST_WEIGHT = 8, 0.01


class SearchTerm(BaseModel):
    """A part of a composed query: one text, one picture, or one stored product (its picture, or its title where the
    mode's queries are texts)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: QueryText | None = None
    image_base64: str | None = None
    image_url: str | None = None
    product_id: ProductId | None = Field(None, description="Left out of the hits.")
    weight: Annotated[float, Field(ge=-1, le=1), BeforeValidator(_no_boolean)] = Field(
        1.0, description="Its share beside the others, of 0.01 at least; below 0: what is not wanted."
    )

    @model_validator(mode="after")
    def is_one_thing(self) -> Self:
        if sum(each is not None for each in (self.text, self.image_base64, self.image_url, self.product_id)) != 1:
            raise ValueError("needs exactly one of: text, image_base64, image_url, product_id")
        return self

    @field_validator("weight")
    @classmethod
    def weighs_something(cls, weight: float) -> float:
        if abs(weight) < LEAST_WEIGHT:
            raise ValueError("is next to 0; give the term a weight of 0.01 or more, or leave it out")
        return weight


class SearchRequest(BaseModel):
    """One search. A multipart request may carry the picture as the file field `image` instead of base64."""

    model_config = ConfigDict(extra="forbid")

    mode: SearchMode
    text: QueryText | None = None
    image_base64: str | None = None
    image_url: str | None = None
    product_id: ProductId | None = Field(
        None, description="Search by this product's own picture or title, leaving it out."
    )
    terms: Annotated[list[SearchTerm], Field(max_length=MAX_TERMS)] = Field(
        [],
        description="In place of one query, a composed one: this product, but red. Texts go with pictures in the modes "
        "of CLIP; `text_to_text` takes texts and products, `hybrid` none.",
    )
    top_k: int = Field(10, ge=1, le=100)
    offset: int = Field(0, ge=0)
    filters: SearchFilters = SearchFilters()
    facets: Annotated[list[FacetName], Field(max_length=MAX_FACETS)] = Field(
        [], description="What the nearest products are counted by: category, price, attributes, attributes.NAME."
    )
    sort: SearchSort | None = Field(
        None, description="Of the nearest 1,000 that fit; descending behind a minus. By default the nearest first."
    )
    boost: Annotated[list[Boost], Field(max_length=MAX_BOOSTS), AfterValidator(_weights_in_bounds)] = Field(
        [],
        description="Of the nearest 1,000 that fit: orders them by `boosted_score`, which is the score times 1 plus "
        "what the boosts give, together at most the sum of their weights, and that at most 1.",
    )
    group_by: Literal["group_id"] | None = Field(
        None, description="Shows the best of each group; top_k and offset count groups. Without one: its own."
    )

    fold: bool = Field(
        False,
        description="Shows products with the same picture once, by the best of them; top_k and offset count what is "
        "shown.",
    )
    as_of: AwareDatetime | None = Field(
        None,
        description="With `fold`: as an answer had it. What was indexed since is left out, so that further pages go on "
        "where that one ended.",
    )
    lexical: bool = Field(
        False, description="With `text_to_text`: titles are found by the words of the query as well as by meaning."
    )
    attribute_words: bool | None = Field(
        None,
        description="Colours, materials, sizes and counts that the text names lift products whose titles and "
        "attributes say the same, and lower those that say another. Null: where words are looked for, too (`hybrid`, "
        "`lexical`), and in `terms`; elsewhere a score is the similarity to the text as it stands, unless it is true.",
    )
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Hits whose `relevance` is below are left out, and `no_match` says whether all were. Needs a "
        "calibration of this mode (`cli.py calibrate`), and a text or a picture; goes without `sort`.",
    )
    keep_below: bool = Field(False, description="With `min_score`: hits below it are shown all the same.")
    relevance: bool = Field(False, description="Hits have their `relevance` and `signals`, as with `min_score`.")
    negation: bool = Field(
        True,
        description="What the text does not want (不要、不带、没有、without, no) is not looked for, and is lowered.",
    )
    rerank: bool = Field(
        False,
        description="Reads the titles of the first 50 once more, each together with the text, and puts these 50 in the "
        "order of that. Needs RERANKER_MODEL.",
    )
    explain: bool = Field(
        False,
        description="Hits have their `explanation`: the rank and score of each way of looking, and, where pictures are "
        "looked through, of the first 3 what in the picture fits the query. Slow: a map takes the model as long as 37 "
        "pictures, behind other searches.",
    )
    exact: bool = Field(
        False,
        description="Looks at all vectors instead of the index's guess, to measure what that misses. Slow: needs the "
        "scope admin.",
    )

    @field_validator("top_k", "offset", "min_score", mode="before")
    @classmethod
    def booleans_are_no_numbers(cls, number: object) -> object:
        return _no_boolean(number)

    @field_validator("min_score")
    @classmethod
    def is_of_the_nearest(cls, min_score: float | None, others: ValidationInfo) -> float | None:
        if min_score is not None and others.data.get("sort") is not None:
            raise ValueError("goes without sort: the first of another order need not be the nearest")
        if min_score is not None and (others.data.get("product_id") or others.data.get("terms")):
            raise ValueError("goes with a text or a picture, not with product_id and terms")
        return min_score

    @field_validator("keep_below")
    @classmethod
    def goes_with_min_score(cls, keep_below: bool, others: ValidationInfo) -> bool:
        if keep_below and others.data.get("min_score") is None:
            raise ValueError("goes with min_score alone")
        return keep_below

    @field_validator("lexical")
    @classmethod
    def looks_for_words_in_titles(cls, lexical: bool, others: ValidationInfo) -> bool:
        if lexical and others.data.get("mode") not in (None, SearchMode.TEXT_TO_TEXT, SearchMode.HYBRID):
            raise ValueError("goes with the modes text_to_text and hybrid alone")
        return lexical

    @field_validator("as_of")
    @classmethod
    def goes_with_fold(cls, as_of: datetime | None, others: ValidationInfo) -> datetime | None:
        if as_of is not None and not others.data.get("fold"):
            raise ValueError("goes with fold alone")
        return as_of

    @field_validator("rerank")
    @classmethod
    def reads_a_text(cls, rerank: bool, others: ValidationInfo) -> bool:
        if rerank and others.data.get("text") is None:
            raise ValueError("goes with a text alone")
        if rerank and (others.data.get("sort") or others.data.get("boost")):
            raise ValueError("comes with sort or boost; send one of them")
        return rerank

    @property
    def is_judged(self) -> bool:
        """Whether its hits are to say how likely each of them is what was asked for, and by what."""
        return self.relevance or self.explain or self.min_score is not None

    @property
    def weighs_attributes(self) -> bool:
        return self.is_fused or bool(self.terms) if self.attribute_words is None else self.attribute_words

    @property
    def is_fused(self) -> bool:
        """Of several searches, words among them."""
        return self.lexical or self.mode is SearchMode.HYBRID

    @field_validator("boost")
    @classmethod
    def is_in_one_order(cls, boost: list[Boost], others: ValidationInfo) -> list[Boost]:
        if boost and others.data.get("sort") is not None:
            raise ValueError("comes with sort; send one of the two")
        return boost


class HitSignals(BaseModel):
    """What a hit's relevance is made of. Null: not looked at in this mode, or its vectors are still to be made."""

    title_cosine: float | None = Field(None, description="Of the query and the title.")
    picture_cosine: float | None = Field(None, description="Of the query and the nearest of its pictures.")
    words: float | None = Field(
        None, description="How much of the text's words it has in its title, sku, category and attributes, 0 to 1."
    )


Way = Literal["meaning", "words", "pictures"]


class HitWay(BaseModel):
    """What one way of looking says of a hit."""

    way: Way
    rank: int = Field(
        description="1 for the first product that it found within the filters, whatever the hits are ordered, grouped "
        "or folded by."
    )
    score: float | None = Field(
        None,
        description="Cosine of the query and the title (`meaning`; in A3 CLIP's) or picture (`pictures`); how much of "
        "the query's words it has, 0 to 1 (`words`).",
    )
    share: float = Field(description="What it gives of the hit's `score`; 1 where it is the only way.")


class RelevanceMap(BaseModel):
    """What in a picture fits the query: by how much less it does with a part of it hidden. Of its thumbnail."""

    image_id: str
    score: float = Field(description="Cosine of the query and the whole picture.")
    cells: list[list[float]] = Field(
        description="Rows of the picture from above, each from the left: how much the cosine falls, on average, with "
        "two by two of these hidden, this one among them. Below 0: it is nearer without."
    )
    png_base64: str = Field(description="The picture in grey, with red on what fits.")


class Explanation(BaseModel):
    ways: list[HitWay] = Field(
        description="Those that found it. None: it stands behind the first of all ways (of a fused search), or is not "
        "among the nearest 1,000 (of another)."
    )
    relevance_map: RelevanceMap | None = Field(
        None,
        description="Of the first 3 hits of a search that looks through pictures; further ones with `offset`. Of the "
        "picture that matched, in a fused search of the main one. Null, too, where `missing` has `relevance_maps`.",
    )


class SearchHit(BaseModel):
    rank: int = Field(description="1 for the best hit of all pages; offset + 1 for the first of this page.")
    score: float = Field(
        description="Cosine similarity, -1 to 1; where words are looked for, too, 0 to 1 by the ranks in each search."
    )
    boosted_score: float | None = Field(
        None,
        description="With `boost`, and by what the text wishes (`understood`): what the hits are ordered by. A score "
        "below 0 is lifted towards 0, and beyond.",
    )
    rerank_score: float | None = Field(
        None, description="With `rerank`, of the first 50: how well the title fits the query. They are ordered by it."
    )
    product: Product
    image: ProductImage | None = Field(
        None,
        description="The picture that matched; null where titles are searched, and where it was replaced a moment ago.",
    )
    matched_words: list[str] = Field(
        [], description="Where words are looked for: those of its title that the query has, as they are compared."
    )
    group_size: int | None = Field(
        None, description="With `group_by`: products of its group in the whole catalogue, whatever the filters say."
    )
    relevance: float | None = Field(
        None,
        ge=0,
        le=1,
        description="With `min_score`, `relevance` or `explain`: how likely it is what was asked for, by the "
        "calibration of the mode; null where there is none, or its vectors are still to be made.",
    )
    signals: HitSignals | None = Field(
        None, description="With `min_score`, `relevance` or `explain`: what that is made of."
    )
    explanation: Explanation | None = Field(None, description="With `explain`.")


class SearchFacets(BaseModel):
    candidates: int = Field(description="Products that are counted: the nearest 1,000 that fit the filters, or all.")
    are_all: bool = Field(description="Whether these are all products that fit the filters.")
    counts: dict[str, Facet] = Field(description="By the facet's name.")


class SearchTimings(BaseModel):
    """Milliseconds spent in each step."""

    encode: float
    vector: float
    metadata: float
    rerank: float | None = Field(None, description="With `rerank`.")
    explain: float | None = Field(None, description="With `explain`: the maps.")
    total: float


class IndexInfo(BaseModel):
    collection: str
    model: str


class NamedAttribute(BaseModel):
    word: str = Field(description="As it stands in the text, compared as words are.")
    kind: str = Field(description="colour, material, size, or count and what is counted.")
    value: str


class Understood(BaseModel):
    """What a text says beside its meaning."""

    wanted: str = Field(description="What is looked for.")
    without: list[str] = Field(description="What is not wanted.")
    attributes: list[NamedAttribute] = Field(description="Named by what is wanted.")


SearchWay = Literal["meaning", "pictures", "reranking", "relevance_maps"]


class SearchResponse(BaseModel):
    mode: SearchMode
    hits: list[SearchHit]
    no_match: bool | None = Field(
        None,
        description="With `min_score`, `relevance` or `explain`, on the first page: whether none of its hits clears "
        "that, or else the threshold of the mode's calibration. Null where it is not known: without a calibration, "
        "while a model is away, or where hits are still to be indexed.",
    )
    understood: Understood | None = Field(
        None, description="Where the text names attributes or what is not wanted, and neither is switched off."
    )
    missing: list[SearchWay] = Field(
        [],
        description="What this answer does without, since that model does not answer: of a search by words and more, "
        "a way of looking; with `rerank`, the reranking; with `explain`, a map that was not made.",
    )
    facets: SearchFacets | None = Field(None, description="Where the search asks for some.")
    as_of: AwareDatetime | None = Field(None, description="With `fold`: what further pages send back.")
    took_ms: SearchTimings
    index: IndexInfo


Prompt = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=PROMPT_MAX_LENGTH),
    AfterValidator(_storable_text),
]
MAX_SEED = 2**32 - 1


class GenerateRequest(BaseModel):
    """What to draw. Left out: sizes, steps and guidance as the model declares them, a random seed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": "红色的沙发", "num_images": 2, "seed": 7}]}
    )

    prompt: Prompt
    negative_prompt: Prompt | None = Field(None, description="What the picture should not show.")
    width: int | None = Field(None, ge=64, multiple_of=8, description="Pixels.")
    height: int | None = Field(None, ge=64, multiple_of=8, description="Pixels.")
    steps: int | None = Field(None, ge=1, description="Denoising steps: more take longer.")
    guidance: float | None = Field(None, ge=0, le=MAX_GUIDANCE, description="How closely to keep to the prompt.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="The first picture's; the next ones count on.")
    num_images: int = Field(1, ge=1, le=4)
    wait_s: float = Field(0, ge=0, le=60, description="Answer with the result if it is there within this time.")

    @field_validator("width", "height", "steps", "guidance", "seed", "num_images", "wait_s", mode="before")
    @classmethod
    def booleans_are_no_numbers(cls, number: object) -> object:
        return _no_boolean(number)


class SimilarProduct(BaseModel):
    score: float = Field(description="Cosine similarity of the two pictures, -1 to 1.")
    product: Product
    image: ProductImage | None = Field(None, description="Which of the product's pictures it is near to.")


class GeneratedImage(BaseModel):
    """A picture that a model drew; the file itself says so too (IPTC's digital source type)."""

    image_id: int
    image_url: str
    thumbnail_url: str
    width: int
    height: int
    seed: int
    agreement: float = Field(description="How well picture and prompt agree: CLIP's cosine similarity, -1 to 1.")
    similar: list[SimilarProduct] | None = Field(
        description="The nearest products by picture; null while the vector database can't be reached."
    )


class GenerationJob(BaseModel):
    job_id: int
    status: JobStatus
    status_url: str
    events_url: str
    progress: float = Field(ge=0, le=1)
    jobs_before: int = Field(description="Jobs that wait in front of this one; to a key of a shop, that shop's.")
    error: str | None
    prompt: str
    images: list[GeneratedImage]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


ImportMode = Literal["create", "upsert", "replace_all"]


class ImportJob(BaseModel):
    job_id: int
    status: JobStatus
    status_url: str
    errors_url: str
    file_name: str
    mode: ImportMode
    mask_personal_data: bool
    dry_run: bool = Field(description="Nothing is changed; the counts say what would be.")
    progress: float = Field(ge=0, le=1, description="How much of the file is read.")
    rows: int = Field(description="Read so far, in the order of the file; each is one of the four below.")
    created: int
    updated: int
    unchanged: int = Field(description="All that the row says was there, or `mode=create` left the product as it is.")
    failed: int = Field(description="Rows that are not in; `errors_url` says why.")
    warnings: int = Field(
        description="What is worth a look in rows that are in: personal data, and what a row above has, too."
    )
    deleted: int = Field(description="Products whose sku the file does not have; with `mode=replace_all`, at the end.")
    deletes_allowed: int | None = Field(description="How many may go; null until they are counted.")
    rows_per_s: float | None
    columns: dict[str, str] = Field(
        description="The first 200 columns, each with the field, or the attribute, that it is taken for."
    )
    error: str | None = Field(description="Why the job did not come to its end; what is counted is in.")
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class Retried(BaseModel):
    queued: int = Field(description="Products that are indexed again.")
    more: bool = Field(description="Others may be left; ask again.")


class GenerationEvent(BaseModel):
    """Thin: says that a job waits; the worker reads the job itself from the database."""

    event_id: uuid.UUID = Field(default_factory=uuid.uuid4)
    job_id: int
    occurred_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


MAX_REINDEX_QUERIES = 10_000
ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class ReindexQuery(BaseModel):
    """A search and the product that it should find: one line of a query file."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_COLUMN_LENGTH)]
    mode: Literal[SearchMode.TEXT_TO_TEXT, SearchMode.TEXT_TO_IMAGE]
    sku: str | None = None
    product_id: int | None = Field(None, ge=1, lt=2**63)

    @model_validator(mode="after")
    def names_one_product(self) -> Self:
        if (self.sku is None) == (self.product_id is None):
            raise ValueError("needs exactly one of: sku, product_id")
        return self

    def names(self, product_id: int, sku: str | None) -> bool:
        return product_id == self.product_id if self.sku is None else sku == self.sku


class ReindexRequest(BaseModel):
    """Other models for the index: it is built beside the live one, and takes its place if it is as good."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"clip_model": "/models/my-clip", "text_model": "BAAI/bge-small-zh-v1.5"}]},
    )

    clip_model: ModelName = Field(description="As CLIP_MODEL; every process must find it under this name.")
    text_model: ModelName = Field(description="As TEXT_MODEL.")
    margin: float = Field(0.02, ge=0, le=1, description="By how much recall at 10 may fall.")
    queries: Annotated[list[ReindexQuery], Field(max_length=MAX_REINDEX_QUERIES)] = []
    switch: StrictBool = Field(True, description="False: build and check it only; the same request with true goes on.")
    force: StrictBool = Field(False, description="Switch whatever the check says.")

    @field_validator("margin", mode="before")
    @classmethod
    def booleans_are_no_numbers(cls, number: object) -> object:
        return _no_boolean(number)


ReindexPhase = Literal["waiting", "preparing", "filling", "checking", "loading", "ready", "switched"]


class ReindexFailure(BaseModel):
    product_id: int
    reason: str


class ReindexJob(BaseModel):
    job_id: int
    status: JobStatus
    status_url: str
    clip_model: str
    text_model: str
    collection: str | None = Field(None, description="The one that is built.")
    phase: ReindexPhase = "waiting"
    progress: float = Field(ge=0, le=1)
    done: int = Field(0, description="Products that are in the new index as they are now.")
    total: int = 0
    failed: int = Field(0, description="Products that the new models can't take.")
    failures: list[ReindexFailure] = Field([], description="The first of them.")
    rate_per_s: float | None = None
    seconds_left: int | None = None
    live_count: int | None = Field(None, description="Products that count in the live index.")
    new_count: int | None = Field(None, description="Those of them that count in the new one.")
    recall_live: float | None = Field(None, description="Recall at 10 over the queries, live index.")
    recall_new: float | None = Field(None, description="The same, new index.")
    error: str | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class RollbackRequest(BaseModel):
    """Which index shall answer. Sent twice it changes nothing more, with a name or without."""

    model_config = ConfigDict(extra="forbid")

    collection: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        None, description="Of the index that shall answer. Null: the one before the last change of the models."
    )


class RolledBackIndex(IndexInfo):
    """The index that answers now, and what it was made with, as the settings take it."""

    clip_model: str
    text_model: str
    query_prompt: str | None = Field(description="As TEXT_QUERY_PROMPT; null: the model's own.")
    document_prompt: str | None = Field(description="As TEXT_DOCUMENT_PROMPT; null: the model's own.")
    since: AwareDatetime | None = Field(description="When it began to answer: long ago where nothing was changed.")
    retired: str | None = Field(description="The collection that is kept: naming it goes the other way.")


class DroppedIndexes(BaseModel):
    collections: list[str] = Field(description="Dropped within seconds.")


Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class RelevanceWeights(BaseModel):
    """Of the signals of a hit, in log-odds: its relevance is 1 / (1 + exp(-(intercept + weights · signals)))."""

    model_config = ConfigDict(extra="forbid")

    intercept: float = Field(ge=-1000, le=1000, allow_inf_nan=False)
    title_cosine: Weight = 0.0
    picture_cosine: Weight = 0.0
    words: Weight = 0.0


class FittedOn(BaseModel):
    """What weights were fitted on, and how good they are on parts of it that they were not fitted on."""

    model_config = ConfigDict(extra="forbid")

    queries: int = Field(ge=1)
    hits: int = Field(ge=1)
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Under which nothing fits: what tells these queries with a product from those without one best. "
        "Null where all had one.",
    )
    auroc: float = Field(ge=0, le=1, description="How often a relevant hit has the higher relevance of two.")
    log_loss: float = Field(ge=0, allow_inf_nan=False)
    calibration_error: float = Field(
        ge=0, le=1, description="By how much relevance and what was relevant differ, over ten parts of equal size."
    )


class NewCalibration(BaseModel):
    """Of one mode, for the index that the fitted hits were of."""

    model_config = ConfigDict(extra="forbid")

    collection: Annotated[str, StringConstraints(max_length=255)] = Field(
        description="As the searches' `index.collection` said: for another index the weights would be wrong."
    )
    weights: RelevanceWeights
    fitted_on: FittedOn


class ModeCalibration(BaseModel):
    weights: RelevanceWeights
    fitted_on: FittedOn
    fitted_at: AwareDatetime | None = Field(description="Null: it came with the models.")


class Calibration(BaseModel):
    """By mode, what the live index has."""

    collection: str
    fingerprint: str = Field(description="Of the models that made it.")
    modes: dict[SearchMode, ModeCalibration]


class ComponentHealth(BaseModel):
    status: Literal["ok", "degraded", "down"]
    detail: str | None = None


class HealthComponents(BaseModel):
    database: ComponentHealth
    vector_db: ComponentHealth
    queue: ComponentHealth
    models: ComponentHealth
    image_store: ComponentHealth
    disk: ComponentHealth = Field(description="Degraded while there is less room than DISK_MIN_FREE_MB.")
    indexing: ComponentHealth = Field(description="The processes that index, and the loops beside them.")
    drawing: ComponentHealth = Field(description="The processes that draw. Down while a job waits and there is none.")


class Backlog(BaseModel):
    """What waits for the background work."""

    pending: int = Field(description="Products that are not indexed as they are now.")
    oldest_s: float | None = Field(description="For how many seconds the oldest of them has waited.")
    jobs: int = Field(description="Generation jobs that wait to be drawn.")


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


KeyScope = Literal["search", "write", "admin"]
KEY_SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
ShopId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
DEFAULT_SHOP = "default"
"""What belongs to no other one: all of an installation that knows no shops, and what a key without one makes."""


class NewApiKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: KeyName = Field(description="Of whom or what uses it: front-end, nightly-feed.")
    scopes: list[KeyScope] = Field(
        min_length=1, max_length=len(KEY_SCOPES), description="None of them has another in it."
    )
    shop_id: ShopId | None = Field(
        None, description="Of which alone it sees and changes anything; not with the scope admin. Null: of all shops."
    )
    expires_at: AwareDatetime | None = None
    rate_limits: Annotated[RateLimits, Field(max_length=RATE_LIMITS_LENGTH)] | None = Field(
        None, description="As RATE_LIMITS, whose limits of the same kinds they replace.", examples=["search=100/second"]
    )


class ApiKey(BaseModel):
    name: str
    scopes: list[KeyScope]
    shop_id: str | None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = Field(description="From then on it is refused; null: never.")
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None = Field(description="To a minute or so.")
    rate_limits: str | None


class CreatedApiKey(ApiKey):
    key: str = Field(description="Shown this once: only its hash is kept.")


class ApiKeys(BaseModel):
    items: list[ApiKey]


class Health(BaseModel):
    """For whoever lacks the scope `admin`: only what is up, and whether demo models answer; the rest is null."""

    status: Literal["ok", "degraded"]
    version: str | None
    components: HealthComponents
    backlog: Backlog | None = Field(description="Null while the database does not answer, too.")
    index: IndexInfo | None
    demo_models: bool = Field(description="True while the small built-in demo models answer.")


class Problem(BaseModel):
    """RFC 9457 problem details; `errors` names the fields where the request has any wrong.

    `title`, `detail` and messages are in Chinese where `Accept-Language` asks for it; nothing else changes with it.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str | None = Field(None, description="Of the detail, as in errors.")
    parameters: dict[str, int | str] = {}
    errors: list[ProblemField] = []
    request_id: str | None = Field(None, description="As in X-Request-ID: what the service's log calls this request.")


class ProductEvent(BaseModel):
    """Thin: says that a product changed; the worker reads the product itself from the database.

    `milvus_ids` is what a deleted product had bound, by collection, since its rows are gone by then.
    """

    event_id: uuid.UUID = Field(default_factory=uuid.uuid4)
    product_id: int
    op: Literal["upsert", "delete"]
    version: int
    milvus_ids: dict[str, list[int]] = {}
    request_id: str | None = None
    """Of whoever changed it; messages of version 0.2.0 have none."""
    occurred_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class DeadLetter(BaseModel):
    """What could not be processed, and why. `payload` is the message as it came."""

    payload: str
    error: str
    occurred_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
