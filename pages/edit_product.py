"""One product, named by ?product_id=: all there is to know of it, change it, delete it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import streamlit as st

from data_models import Product
from web.cards import api_client, as_plain, load_thumbnails, show_error, show_facts, show_status
from web.client import ApiError
from web.frame import run_page
from web.product_form import (
    Message,
    ask_for_fields,
    forget_what_is_known,
    leave_message,
    show_index_error,
    show_message,
    stored_fields,
    wait_until_indexed,
)
from web.texts import t


def show_product() -> None:
    wanted = st.query_params.get("product_id", "")
    if not wanted.isdecimal():
        st.switch_page("pages/manage_products.py")
    product_id = int(wanted)
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
    if len(product.images) > 1:
        show_further_pictures(product)
    with st.container(horizontal=True, vertical_alignment="center"):
        show_status(product)
        st.page_link(
            "pages/image_to_image.py",
            label=t("similar"),
            icon=":material/image_search:",
            query_params={"product_id": str(product.product_id)},
        )
    if product.group_id:
        st.page_link(
            "pages/manage_products.py",
            label=t("same_group", group_id=as_plain(product.group_id)),
            icon=":material/stacks:",
            query_params={"q": product.group_id},
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


def show_further_pictures(product: Product) -> None:
    _, *further = product.images
    with st.container(horizontal=True, key="further_pictures"):
        for image, thumbnail in zip(further, load_thumbnails(further), strict=True):
            key, others = f"{product.version}_{image.position}", [each for each in product.images if each != image]
            with st.container(width=96, gap="xsmall"):
                st.image(thumbnail, width=96, alt=t("picture_alt", position=image.position))
                with st.container(horizontal=True, gap="small"):
                    if st.button("", icon=":material/star:", help=t("make_main"), type="tertiary", key=f"main_{key}"):
                        order = [each.image_id for each in (image, *others)]
                        change_pictures(product, partial(api_client().order_pictures, product, order))
                    label = t("remove_picture", position=image.position)
                    if st.button("", icon=":material/delete:", help=label, type="tertiary", key=f"remove_{key}"):
                        change_pictures(product, partial(api_client().remove_picture, product, image.image_id))


def change_pictures(product: Product, change: Callable[[], Product]) -> None:
    try:
        change()
        leave_message(product.product_id, wait_until_indexed(product.product_id))
    except ApiError as error:
        show_error(error)
        return
    st.rerun()


def moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "–"


def show_edit_form(product: Product) -> None:
    # The version stands in the keys: after a change the form starts from what is stored now.
    form = ask_for_fields(f"edit_{product.product_id}_{product.version}", product)
    if form is None:
        return
    changes = changed_fields(product, form.fields)
    if not changes and form.image is None and not form.further:
        st.info(t("nothing_changed"))
        return
    try:
        if changes or form.image is not None:
            api_client().change_product(product.product_id, changes, form.image)
        for picture in form.further:
            api_client().add_picture(product.product_id, picture)
        leave_message(product.product_id, wait_until_indexed(product.product_id))
    except ApiError as error:
        show_error(error)
        return
    forget_what_is_known()
    st.rerun()


def changed_fields(product: Product, fields: Mapping[str, str]) -> dict[str, str]:
    """Only these are sent, so that a change somebody else makes to another field meanwhile is not undone."""
    stored = stored_fields(product)
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


run_page(show_product)
