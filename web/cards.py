"""What several pages show: messages, pictures as equal squares, and products as cards or rows."""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import streamlit as st
from PIL import Image, ImageOps

from data_models import PICTURE_FORMATS, Product, ProductImage, SearchHit
from tuwen.settings import load_settings
from web.access import ask_for_key, session_key
from web.client import ApiClient, ApiError, ApiUnreachable
from web.texts import Language, session_language, t

SQUARE_SIDE = 320
THUMBNAIL_CONNECTIONS = 8
CLIENTS = 100  # for each language and each key that visitors give
# A picture's address holds the hash of its bytes: it never goes stale, only out of the cache.
CACHED_THUMBNAILS = 4000
VARIANTS_SHOWN = 60
PICTURE_TYPES = [extension for each in PICTURE_FORMATS.values() for extension in each.extensions]
MARKDOWN_SYNTAX = re.compile(r"([\\`*_{}\[\]()<>#+\-!|~$:^=&])")
STATUS_COLORS = {"pending": "orange", "indexed": "green", "failed": "red"}

# Streamlit's own layouts stack on a phone or keep fixed widths; these grids fill the width with equal cards.
STYLE = """<style>
.stMainBlockContainer { padding-top: 3.5rem; }
[class*="st-key-hit_grid"], [class*="st-key-variant_grid"] { display: grid; gap: 0.75rem;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
[class*="st-key-hit_grid"] > *, [class*="st-key-variant_grid"] > * { width: 100% !important; min-width: 0; }
[class*="st-key-variant_grid"] { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
/* A link to the page one is on is still a link to another product, not a mark of where one is. */
.stMain [data-testid="stPageLink-NavLink"] { background: none; padding: 0 0.25rem 0 0; }
.stMain [data-testid="stPageLink-NavLink"] * { font-weight: 400; }
:is([class*="st-key-hit_"], [class*="st-key-variant_"]) [data-testid="stPageLink-NavLink"] * { font-size: 0.8rem;
  font-weight: 400; }
:is([class*="st-key-hit_grid"], [class*="st-key-variant_grid"]) [data-testid="stPageLink-NavLink"] { background: none;
  padding: 0; }
:is([class*="st-key-hit_grid"], [class*="st-key-variant_grid"]) [data-testid="stPageLink-NavLink"]
  :has(> [data-testid="stIconMaterial"]) { display: none; }
.tuwen-title { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden;
  overflow-wrap: anywhere; line-height: 1.4; font-size: 0.9rem; }
.tuwen-grid .tuwen-title { min-height: 2.8em; }
.tuwen-grid .tuwen-facts { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tuwen-facts { color: #57606a; font-size: 0.8rem; overflow-wrap: anywhere; }
.tuwen-facts b { font-weight: 500; color: #24292f; padding-left: 0.25rem; }
.tuwen-facts.tuwen-title { font-size: 0.8rem; -webkit-line-clamp: 4; }
/* Facets beside a list: rows close to each other, one line each; on a phone a strip that is pushed sideways. */
[class*="_facets"] [data-testid="stCheckbox"] p { white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  font-size: 0.85rem; }
@media (max-width: 640px) {
  [class*="st-key-"][class*="_facets"] { flex-direction: row; flex-wrap: nowrap; overflow-x: auto;
    padding-bottom: 0.5rem; }
  .st-key-list_beside { min-height: 16rem; }  /* so that the products below stay where they are */
  [class*="st-key-"][class*="_facets"] > * { flex: 0 0 9.5rem; max-height: 15rem; overflow-y: auto; }
}
.tuwen-score { color: #2f5d8a; font-size: 0.8rem; font-weight: 600; font-variant-numeric: tabular-nums; }
</style>"""


def api_client() -> ApiClient:
    return _api_client_in(session_language(), session_key())


@st.cache_resource(max_entries=CLIENTS, show_spinner=False)
def _api_client_in(language: Language, key: str) -> ApiClient:
    return ApiClient(load_settings().api_address, language, key)


@st.cache_data(ttl=15, show_spinner=False)
def demo_models_in_use(_: str) -> bool:
    return api_client().health().demo_models


def show_page_head(title: str, introduction: str) -> None:
    """Title, what the page does, and the banner where the demo models answer."""
    st.title(title, anchor=False)
    st.caption(introduction)
    if demo_models_in_use(api_client().address):
        st.info(t("demo_models_banner"), icon=":material/science:")


def show_error(error: ApiError) -> None:
    """In the API's words; when there is no API to word it, in ours."""
    if isinstance(error, ApiUnreachable):
        port = load_settings().api_port
        st.error(
            f"**{t('api_unreachable', address=error.address)}**\n\n{t('api_unreachable_hint', port=port)}\n\n"
            f"{as_plain(error.reason)}",
            icon=":material/cloud_off:",
        )
    else:
        st.error(as_plain(error.detail), icon=":material/error:")
        ask_for_key(error)


def as_plain(text: str) -> str:
    """Words of others, kept from being read as Markdown."""
    return MARKDOWN_SYNTAX.sub(r"\\\1", text)


# --- Pictures --------------------------------------------------------------------------------------------------------


def square_picture(data: bytes) -> bytes:
    """Any picture as a JPEG of one size, padded with white. Raises OSError for what Pillow can't read."""
    source = Image.open(io.BytesIO(data))
    source.draft("RGB", (SQUARE_SIDE, SQUARE_SIDE))
    image = ImageOps.exif_transpose(source).convert("RGBA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    square = ImageOps.pad(flat.convert("RGB"), (SQUARE_SIDE, SQUARE_SIDE), color="white")
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


@st.cache_data(max_entries=100, show_spinner=False)
def uploaded_picture(data: bytes) -> bytes | None:
    """For showing what was uploaded; None where only the API can say what is wrong with it."""
    try:
        return square_picture(data)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


@st.cache_data(max_entries=CACHED_THUMBNAILS, show_spinner=False)
def _cached_thumbnail(_client: ApiClient, address: str, path: str) -> bytes:
    return square_picture(_client.image(path))


@st.cache_data(show_spinner=False)
def _blank_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SQUARE_SIDE, SQUARE_SIDE), "#f0f1f3").save(buffer, "JPEG")
    return buffer.getvalue()


def load_thumbnails(pictured: Iterable[Product | ProductImage]) -> list[bytes]:
    """In their order, of products the main picture's. Fetched here: the browser may not reach the API where we do."""
    client, blank = api_client(), _blank_picture()

    def load(path: str) -> bytes:
        try:
            return _cached_thumbnail(client, client.address, path)
        except (ApiError, OSError):
            return blank  # a card without its picture is still of use

    with ThreadPoolExecutor(THUMBNAIL_CONNECTIONS) as pool:
        return list(pool.map(load, [each.thumbnail_url for each in pictured]))


# --- Products --------------------------------------------------------------------------------------------------------


def show_hit_grid(
    hits: Sequence[SearchHit], key: str = "", offer_more: Callable[[SearchHit], None] = lambda _: None
) -> None:
    """`key` tells several grids on one page apart. `offer_more` stands at the end of each card."""
    with st.container(key=f"hit_grid{key}", horizontal=True):
        for hit, picture in zip(hits, load_thumbnails(hit.image or hit.product for hit in hits), strict=True):
            with st.container(border=True, height="stretch", gap="xsmall", key=f"hit_{hit.rank}{key}"):
                st.image(picture, width="stretch", alt=hit.product.title)
                st.html(f'<div class="tuwen-grid">{_score(hit)}{product_summary(hit.product, with_keys=False)}</div>')
                offer_variants(hit, key)
                show_product_links(hit.product)
                offer_more(hit)


def show_hit_list(hits: Sequence[SearchHit], offer_more: Callable[[SearchHit], None]) -> None:
    for hit, picture in zip(hits, load_thumbnails(hit.image or hit.product for hit in hits), strict=True):
        with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False, key=f"hit_{hit.rank}"):
            st.image(picture, width=88, alt=hit.product.title)
            with st.container(gap="xsmall"):
                st.html(product_summary(hit.product) + _score(hit))
                offer_variants(hit)
                show_product_links(hit.product)
                offer_more(hit)


def show_product_links(product: Product) -> None:
    query = {"product_id": str(product.product_id)}
    with st.container(horizontal=True, gap="small"):
        st.page_link("pages/image_to_image.py", label=t("similar"), icon=":material/image_search:", query_params=query)
        st.page_link("pages/edit_product.py", label=t("details"), icon=":material/edit:", query_params=query)


def offer_variants(hit: SearchHit, key: str = "") -> None:
    group_id = hit.product.group_id
    has_others = hit.group_size is not None and hit.group_size > 1
    if group_id is None or not has_others:
        return
    label, key = t("variants", count=hit.group_size), f"variants_{hit.rank}{key}"
    if st.button(label, icon=":material/stacks:", type="tertiary", key=key):
        st.dialog(t("variants_title", group_id=as_plain(group_id)), width="medium")(lambda: show_variants(group_id))()


def show_variants(group_id: str) -> None:
    page = api_client().list_products(group_id=group_id, page_size=VARIANTS_SHOWN, sort="product_id")
    with st.container(key="variant_grid", horizontal=True):
        for product, picture in zip(page.items, load_thumbnails(page.items), strict=True):
            with st.container(border=True, height="stretch", gap="xsmall", key=f"variant_{product.product_id}"):
                st.image(picture, width="stretch", alt=product.title)
                attributes = " · ".join(f"{name}: {words_of(value)}" for name, value in product.attributes.items())
                summary = product_summary(product, with_keys=False)
                st.html(f'<div class="tuwen-grid">{summary}</div>{_few_lines(attributes)}')
                show_product_links(product)
    if page.total > len(page.items):
        st.caption(t("variants_shown", shown=len(page.items), total=page.total))


def product_summary(product: Product, *, with_keys: bool = True) -> str:
    """Title, category, price, sku and group as HTML; they are other people's words, so all of it is escaped."""
    title = html.escape(product.title)
    price = "" if product.price is None else f"{product.price:,.2f}"
    group = t("group_fact", group_id=product.group_id) if product.group_id else ""
    keys = (product.sku, group) if with_keys else ()
    facts = " · ".join(html.escape(fact) for fact in (product.category, price, *keys) if fact)
    return f'<div class="tuwen-title" title="{title}">{title}</div><div class="tuwen-facts">{facts or "&nbsp;"}</div>'


def words_of(value: Any) -> str:
    """An attribute's value."""
    if isinstance(value, bool):
        return t("value_yes") if value else t("value_no")
    return ", ".join(map(words_of, value)) if isinstance(value, list) else str(value)


def _few_lines(text: str) -> str:
    text = html.escape(text)
    return f'<div class="tuwen-title tuwen-facts" title="{text}">{text}</div>'


def show_facts(facts: Mapping[str, object]) -> None:
    lines = (f"<div>{html.escape(name)} <b>{html.escape(str(value))}</b></div>" for name, value in facts.items())
    st.html(f'<div class="tuwen-facts">{"".join(lines)}</div>')


def show_status(product: Product) -> None:
    status = product.index_status
    st.badge(t(f"status_{status}"), color=STATUS_COLORS[status])  # type: ignore[arg-type]


def _score(hit: SearchHit) -> str:
    text = html.escape(t("score", score=hit.score))
    if hit.image and len(hit.product.images) > 1:
        text += f" · {html.escape(t('hit_picture', position=hit.image.position, count=len(hit.product.images)))}"
    if hit.matched_words:
        text += f" · {html.escape(t('matched_words', words='、'.join(hit.matched_words)))}"
    return f'<div class="tuwen-score" title="{html.escape(t("score_help"))}">{hit.rank} · {text}</div>'
