"""What adding and changing a product share: the form, the wait for the index, the message about how it ended."""

import json
import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import streamlit as st

from data_models import CreatedProduct, Product
from web.attribute_lines import NotAnAttribute, attribute_lines, read_attribute_lines
from web.cards import PICTURE_TYPES, api_client, as_plain
from web.filters import frequent_attributes, list_facets
from web.texts import t

INDEX_WAIT_S = 60
POLL_S = 0.3
MESSAGE_KEY = "products_message"
FIELDS = ("sku", "group_id", "category", "price")


class Message(NamedTuple):
    """What an action came to; it stands until the next action, whatever else makes Streamlit run again meanwhile."""

    kind: Literal["success", "warning", "error"]
    text: str


class Form(NamedTuple):
    fields: dict[str, str]
    image: bytes | None
    further: list[bytes]


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
    show_now(left[1])


def show_now(message: Message) -> None:
    show = {"success": st.success, "warning": st.warning, "error": st.error}[message.kind]
    show(message.text)


def forget_message() -> None:
    st.session_state.pop(MESSAGE_KEY, None)


def forget_what_is_known() -> None:
    """Of the catalogue, which has changed."""
    frequent_attributes.clear()
    list_facets.clear()


def show_index_error(product: Product) -> None:
    st.error(as_plain(product.index_error or ""), icon=":material/error:")


def ask_for_fields(key: str, product: Product | None) -> Form | None:
    """The form, filled with the product's fields; its content once it was sent."""
    with st.form(f"{key}_form", border=product is not None):
        title = st.text_input(t("field_title"), product.title if product else "", max_chars=500, key=f"{key}_title")
        image = st.file_uploader(
            t("field_new_picture") if product else t("field_picture"), type=PICTURE_TYPES, key=f"{key}_picture"
        )
        further = st.file_uploader(
            t("field_further_pictures"), type=PICTURE_TYPES, accept_multiple_files=True, key=f"{key}_further"
        )
        stored = stored_fields(product) if product else dict.fromkeys(FIELDS, "")
        upper, lower = st.columns(2), st.columns(2)
        sku = upper[0].text_input(t("field_sku"), stored["sku"], max_chars=64, key=f"{key}_sku")
        group_id = upper[1].text_input(
            t("field_group_id"), stored["group_id"], max_chars=64, help=t("group_id_help"), key=f"{key}_group_id"
        )
        category = lower[0].text_input(t("field_category"), stored["category"], max_chars=100, key=f"{key}_category")
        price = lower[1].text_input(t("field_price"), stored["price"], key=f"{key}_price")
        attributes = st.text_area(
            t("field_attributes"),
            attribute_lines(product.attributes) if product else "",
            placeholder=t("attributes_placeholder"),
            help=t("attributes_help"),
            height=140,
            key=f"{key}_attributes",
        )
        if product is not None:
            st.caption(t("clear_hint"))
        label = t("save_changes") if product else t("save_product")
        if not st.form_submit_button(label, type="primary", on_click=forget_message):
            return None
    try:
        typed = read_attribute_lines(attributes)
    except NotAnAttribute as error:
        st.error(t("attributes_line", line=as_plain(error.line)), icon=":material/error:")
        return None
    fields = {"title": title, "sku": sku, "category": category, "price": price, "group_id": group_id}
    fields["attributes"] = as_json(typed)
    pictures = image.getvalue() if image else None, [each.getvalue() for each in further]
    return Form({name: value.strip() for name, value in fields.items()}, *pictures)


def stored_fields(product: Product) -> dict[str, str]:
    """The product as the form sends it."""
    return {
        "title": product.title,
        "sku": product.sku or "",
        "category": product.category or "",
        "price": "" if product.price is None else f"{product.price:.2f}",
        "group_id": product.group_id or "",
        "attributes": as_json(product.attributes),
    }


def as_json(attributes: Mapping[str, Any]) -> str:
    """Empty where there are none: that clears them."""
    return json.dumps(attributes, ensure_ascii=False) if attributes else ""


def with_duplicates(message: Message, product: CreatedProduct) -> Message:
    """And which others have its picture."""
    if not product.duplicates:
        return message
    names = ", ".join(f"#{each.product_id} {as_plain(each.title)}" for each in product.duplicates)
    kind = "warning" if message.kind == "success" else message.kind
    return Message(kind, f"{message.text} {t('has_duplicates', products=names)}")


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
