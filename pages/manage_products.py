"""Products: list, add, change, delete, and how far the index is with each. ?product_id= opens one of them."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeVar

import streamlit as st

from data_models import IndexStatus, Product, ProductPage
from web_cards import (
    PICTURE_TYPES,
    api_client,
    as_plain,
    known_categories,
    load_thumbnails,
    product_summary,
    show_error,
    show_facts,
    show_page_head,
    show_status,
)
from web_client import ApiError
from web_frame import run_page
from web_text import LANGUAGE_KEY, t

Choice = TypeVar("Choice", bound=str)

PAGE_SIZE = 20
INDEX_WAIT_S = 60
POLL_S = 0.3
WATCH_EVERY_S = 2
STATUSES: tuple[IndexStatus | Literal["all"], ...] = ("all", "pending", "indexed", "failed")
SORTS = {
    "newest": "-product_id",
    "oldest": "product_id",
    "updated": "-updated_at",
    "title": "title",
    "price_up": "price",
    "price_down": "-price",
}
PAGE_KEY = "products_page"
MESSAGE_KEY = "products_message"


class Message(NamedTuple):
    """What an action came to; it stands until the next action, whatever else makes Streamlit run again meanwhile."""

    kind: Literal["success", "warning", "error"]
    text: str


class Form(NamedTuple):
    fields: dict[str, str]
    image: bytes | None


def show_products() -> None:
    wanted = st.query_params.get("product_id", "")
    if wanted.isdecimal():
        show_one_product(int(wanted))
    else:
        show_list()


def leave_message(place: int | None, message: Message) -> None:
    """For the page of this product, or without one for the list."""
    st.session_state[MESSAGE_KEY] = (place, message)


def show_message(place: int | None) -> None:
    left: tuple[int | None, Message] | None = st.session_state.get(MESSAGE_KEY)
    if left is None:
        return
    if left[0] != place:
        forget_message()  # the reader went on
        return
    show = {"success": st.success, "warning": st.warning, "error": st.error}[left[1].kind]
    show(left[1].text)


def forget_message() -> None:
    st.session_state.pop(MESSAGE_KEY, None)


# --- The list --------------------------------------------------------------------------------------------------------


def show_list() -> None:
    show_page_head(t("page_products"), t("products_intro"))
    show_message(None)
    with st.container(horizontal=True):
        if st.button(t("add_product"), type="primary", icon=":material/add:", on_click=forget_message):
            st.dialog(t("add_product"), width="medium")(show_add_form)()
        st.button(t("refresh"), icon=":material/refresh:", on_click=forget_message)
    page = ask_for_page()
    watch_pending()
    if not page.items:
        st.info(t("list_empty"), icon=":material/inventory_2:")
    for product, picture in zip(page.items, load_thumbnails(page.items), strict=True):
        show_row(product, picture)
    show_paging(page)


def ask_for_page() -> ProductPage:
    text, category, status, sort = st.columns([3, 2, 2, 2])
    wanted = text.text_input(t("list_search"), key="list_search", on_change=to_first_page, persist_state="session")
    chosen_category = category.selectbox(
        t("list_category"),
        known_categories(api_client().address),
        index=None,
        accept_new_options=True,
        placeholder=t("status_all"),
        key="list_category",
        on_change=to_first_page,
        persist_state="session",
    )
    with status:
        chosen_status = choose("status", STATUSES)
    with sort:
        chosen_sort = choose("sort", list(SORTS))
    return api_client().list_products(
        page=st.session_state.setdefault(PAGE_KEY, 1),
        page_size=PAGE_SIZE,
        text=wanted.strip(),
        category=chosen_category or "",
        index_status=None if chosen_status == "all" else chosen_status,
        sort=SORTS[chosen_sort],
    )


def choose(name: str, options: Sequence[Choice]) -> Choice:
    """A select box whose options are words of ours. It identifies them by their words, so each language has its own."""
    language, kept = st.session_state[LANGUAGE_KEY], f"list_{name}_kept"
    chosen = st.selectbox(
        t(f"list_{name}"),
        options,
        index=options.index(st.session_state.get(kept, options[0])),
        format_func=lambda each: t(f"{name}_{each}"),
        key=f"list_{name}_{language}",
        on_change=to_first_page,
    )
    st.session_state[kept] = chosen
    return chosen


def to_first_page() -> None:
    forget_message()
    st.session_state[PAGE_KEY] = 1


def turn_page(by: int) -> None:
    forget_message()
    st.session_state[PAGE_KEY] += by


def show_row(product: Product, picture: bytes) -> None:
    key = f"product_{product.product_id}"
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False, key=key):
        st.image(picture, width=64, alt=product.title)
        with st.container(gap="xsmall"):
            st.html(product_summary(product))
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                show_status(product)
                st.page_link(
                    "pages/manage_products.py",
                    label=t("details"),
                    icon=":material/edit:",
                    query_params={"product_id": str(product.product_id)},
                )
            if product.index_error:
                show_index_error(product)


def show_index_error(product: Product) -> None:
    st.error(as_plain(product.index_error or ""), icon=":material/error:")


def show_paging(page: ProductPage) -> None:
    pages = max(1, -(-page.total // page.page_size))
    if page.page > pages:  # the last product of the last page was deleted, or filtered away elsewhere
        st.session_state[PAGE_KEY] = pages
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center"):
        st.button(
            t("previous_page"),
            icon=":material/chevron_left:",
            disabled=page.page <= 1,
            on_click=turn_page,
            args=(-1,),
        )
        st.caption(t("list_pages", page=page.page, pages=pages, total=page.total), width="content")
        st.button(
            t("next_page"),
            icon=":material/chevron_right:",
            icon_position="right",
            disabled=page.page >= pages,
            on_click=turn_page,
            args=(1,),
        )


def watch_pending() -> None:
    """How many still wait, kept up to date while any do; the list itself stays still under the reader's hands."""
    if api_client().list_products(page_size=1, index_status="pending").total:
        st.fragment(show_pending, run_every=WATCH_EVERY_S)()


def show_pending() -> None:
    try:
        pending = api_client().list_products(page_size=1, index_status="pending").total
    except ApiError as error:
        show_error(error)
        return
    if pending:
        st.warning(t("pending_now", count=pending), icon=":material/hourglass_top:")
    else:
        st.success(t("pending_done"), icon=":material/check_circle:")


# --- Adding ----------------------------------------------------------------------------------------------------------


def show_add_form() -> None:
    form = ask_for_fields("add", None)
    if form is None:
        return
    try:
        product = api_client().create_product(form.fields, form.image)
        message = wait_until_indexed(product.product_id)
    except ApiError as error:
        show_error(error)
        return
    to_first_page()
    known_categories.clear()
    leave_message(None, message)
    st.rerun()


def ask_for_fields(key: str, product: Product | None) -> Form | None:
    """The form, filled with the product's fields; its content once it was sent."""
    with st.form(f"{key}_form", border=product is not None):
        title = st.text_input(t("field_title"), product.title if product else "", max_chars=500, key=f"{key}_title")
        image = st.file_uploader(
            t("field_new_picture") if product else t("field_picture"), type=PICTURE_TYPES, key=f"{key}_picture"
        )
        left, middle, right = st.columns(3)
        sku = left.text_input(t("field_sku"), product.sku or "" if product else "", max_chars=64, key=f"{key}_sku")
        category = middle.text_input(
            t("field_category"), product.category or "" if product else "", max_chars=100, key=f"{key}_category"
        )
        price = right.text_input(t("field_price"), price_text(product), key=f"{key}_price")
        attributes = st.text_area(
            t("field_attributes"),
            attributes_text(product),
            placeholder=t("attributes_placeholder"),
            height=100,
            key=f"{key}_attributes",
        )
        if product is not None:
            st.caption(t("clear_hint"))
        label = t("save_changes") if product else t("save_product")
        if not st.form_submit_button(label, type="primary", on_click=forget_message):
            return None
    fields = {"title": title, "sku": sku, "category": category, "price": price, "attributes": attributes}
    return Form({name: value.strip() for name, value in fields.items()}, image.getvalue() if image else None)


def price_text(product: Product | None) -> str:
    return "" if product is None or product.price is None else f"{product.price:.2f}"


def attributes_text(product: Product | None) -> str:
    return json.dumps(product.attributes, ensure_ascii=False, indent=2) if product and product.attributes else ""


def wait_until_indexed(product_id: int) -> Message:
    """Shows the wait, bounded: the product is safe in the database whether or not anybody watches."""
    deadline = time.monotonic() + INDEX_WAIT_S
    with st.spinner(t("indexing"), show_time=True):
        while True:
            product = api_client().product(product_id)
            if product.index_status == "indexed":
                return Message("success", t("now_indexed", product_id=product_id))
            if product.index_status == "failed":
                reason = as_plain(product.index_error or "")
                return Message("error", f"{t('index_failed', product_id=product_id)} {reason}")
            if time.monotonic() > deadline:
                return Message("warning", t("still_pending", product_id=product_id, seconds=INDEX_WAIT_S))
            time.sleep(POLL_S)


# --- One product -----------------------------------------------------------------------------------------------------


def show_one_product(product_id: int) -> None:
    st.page_link("pages/manage_products.py", label=t("back_to_list"), icon=":material/arrow_back:")
    product = api_client().product(product_id)
    st.title(t("product_heading", product_id=product_id), anchor=False)
    show_message(product_id)
    facts, form = st.columns([1, 2], gap="large")
    with facts:
        show_state(product)
    with form:
        show_edit_form(product)
        if st.button(t("delete_product"), icon=":material/delete:"):
            st.dialog(t("delete_title", product_id=product_id))(lambda: confirm_deletion(product))()


def show_state(product: Product) -> None:
    with st.container(border=True, width=320):
        st.image(load_thumbnails([product])[0], width="stretch", alt=product.title)
    with st.container(horizontal=True, vertical_alignment="center"):
        show_status(product)
        st.page_link(
            "pages/image_to_image.py",
            label=t("similar"),
            icon=":material/image_search:",
            query_params={"product_id": str(product.product_id)},
        )
    if product.index_error:
        show_index_error(product)
    show_facts(
        {
            t("fact_picture"): f"{product.image_width} × {product.image_height}",
            t("fact_version"): product.version,
            t("fact_milvus_id"): product.milvus_id or "–",
            t("fact_created"): moment(product.created_at),
            t("fact_updated"): moment(product.updated_at),
            t("fact_indexed"): moment(product.indexed_at),
        }
    )


def moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "–"


def show_edit_form(product: Product) -> None:
    # The version stands in the keys: after a change the form starts from what is stored now.
    form = ask_for_fields(f"edit_{product.product_id}_{product.version}", product)
    if form is None:
        return
    changes = changed_fields(product, form.fields)
    if not changes and form.image is None:
        st.info(t("nothing_changed"))
        return
    try:
        api_client().change_product(product.product_id, changes, form.image)
        leave_message(product.product_id, wait_until_indexed(product.product_id))
    except ApiError as error:
        show_error(error)
        return
    known_categories.clear()
    st.rerun()


def changed_fields(product: Product, fields: Mapping[str, str]) -> dict[str, str]:
    """Only these are sent, so that a change somebody else makes to another field meanwhile is not undone."""
    stored = {
        "title": product.title,
        "sku": product.sku or "",
        "category": product.category or "",
        "price": price_text(product),
        "attributes": attributes_text(product),
    }
    return {name: value for name, value in fields.items() if value != stored[name]}


def confirm_deletion(product: Product) -> None:
    st.write(t("delete_warning"))
    st.text(product.title)
    with st.container(horizontal=True):
        confirmed = st.button(t("delete_confirm"), type="primary", icon=":material/delete:")
        cancelled = st.button(t("cancel"))
    if confirmed:
        try:
            api_client().delete_product(product.product_id)
        except ApiError as error:
            show_error(error)
            return
        leave_message(None, Message("success", t("deleted", product_id=product.product_id)))
        st.switch_page("pages/manage_products.py")
    if cancelled:
        st.rerun()


run_page(show_products)
