"""Products: list, filter, add, and how far the index is with each."""

from http import HTTPStatus
from typing import Literal, NamedTuple

import streamlit as st

from data_models import IndexStatus, Product, ProductPage
from web.cards import (
    api_client,
    load_thumbnails,
    product_summary,
    show_error,
    show_page_head,
    show_status,
)
from web.client import ApiError
from web.filters import Chosen, FilterPanel, choose, chosen_in, list_facets
from web.frame import run_page
from web.product_form import (
    ask_for_fields,
    forget_message,
    forget_what_is_known,
    leave_message,
    show_index_error,
    show_message,
    wait_until_indexed,
    with_duplicates,
)
from web.texts import t

PAGE_SIZE = 20
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
TEXT_KEY = "list_search"


class Asked(NamedTuple):
    text: str
    status: IndexStatus | None
    sort: str
    chosen: Chosen


def show_list() -> None:
    show_page_head(t("page_manage_products"), t("products_intro"))
    show_message(None)
    with st.container(horizontal=True):
        if st.button(t("add_product"), type="primary", icon=":material/add:", on_click=forget_message):
            st.dialog(t("add_product"), width="medium")(show_add_form)()
        st.button(t("refresh"), icon=":material/refresh:", on_click=look_anew)
        offer_retry()
    panel = FilterPanel("list", on_change=to_first_page)
    asked = ask_for_page()
    watch_pending()
    beside, main = st.columns([1, 3], gap="medium")
    with beside:
        room = st.container(key="list_beside")
    with main:
        panel.show_chips()
        try:
            show_page(asked)
        except ApiError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            show_error(error)  # of the prices, which stand beside it
    with room:  # behind the products, which need not wait for what is counted
        show_facets(panel, asked)


def look_anew() -> None:
    forget_message()
    forget_what_is_known()


def show_page(asked: Asked) -> None:
    page = api_client().list_products(
        page=st.session_state.setdefault(PAGE_KEY, 1),
        page_size=PAGE_SIZE,
        text=asked.text,
        index_status=asked.status,
        filters=asked.chosen.as_filters(),
        sort=asked.sort,
    )
    if not page.items:
        st.info(t("list_empty"), icon=":material/inventory_2:")
    for product, picture in zip(page.items, load_thumbnails(page.items), strict=True):
        show_row(product, picture)
    show_paging(page)


def show_facets(panel: FilterPanel, asked: Asked) -> None:
    try:
        facets = list_facets(api_client().answers_for, asked.text, asked.status, asked.chosen)
    except ApiError as error:
        st.caption(t("facets_unknown"), help=error.detail)
        facets = {}
    panel.show_facets(facets)


def offer_retry() -> None:
    if not api_client().list_products(page_size=1, index_status="failed").total:
        return
    if st.button(t("retry_failed"), icon=":material/replay:", on_click=forget_message):
        retried = api_client().retry_failed()
        st.info(t("retried", count=retried.queued), icon=":material/hourglass_top:")


def ask_for_page() -> Asked:
    if "q" in st.query_params:  # a link to what it finds; from then on the field leads
        st.session_state[TEXT_KEY] = st.query_params.pop("q")
        st.session_state[PAGE_KEY] = 1
    text, status, sort = st.columns([2, 1, 1])
    wanted = text.text_input(t("list_search"), key=TEXT_KEY, on_change=to_first_page, persist_state="session")
    with status:
        chosen_status = choose("list", "status", STATUSES, to_first_page)
    with sort:
        chosen_sort = choose("list", "sort", list(SORTS), to_first_page)
    status_asked = None if chosen_status == "all" else chosen_status
    return Asked(wanted.strip(), status_asked, SORTS[chosen_sort], chosen_in("list"))


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
                    "pages/edit_product.py",
                    label=t("details"),
                    icon=":material/edit:",
                    query_params={"product_id": str(product.product_id)},
                )
            if product.index_error:
                show_index_error(product)
            if product.index_status == "failed" and st.button(
                t("reindex"), icon=":material/replay:", key=f"reindex_{product.product_id}"
            ):
                reindex(product)


def reindex(product: Product) -> None:
    try:
        api_client().reindex_product(product.product_id)
        leave_message(None, wait_until_indexed(product.product_id))
    except ApiError as error:
        show_error(error)
        return
    st.rerun()


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


def show_add_form() -> None:
    form = ask_for_fields("add", None)
    if form is None:
        return
    try:
        product = api_client().create_product(form.fields, form.image, form.further)
        message = with_duplicates(wait_until_indexed(product.product_id), product)
    except ApiError as error:
        show_error(error)
        return
    to_first_page()
    forget_what_is_known()
    leave_message(None, message)
    st.rerun()


run_page(show_list)
