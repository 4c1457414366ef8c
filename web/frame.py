"""What stands around every page: navigation, language switch, style, and the readable end of a page that failed."""

from collections.abc import Callable

import streamlit as st
from PIL import Image

from tuwen.settings import load_settings
from web.cards import STYLE, show_error
from web.client import ApiError
from web.texts import LANGUAGE_KEY, LANGUAGES, t

SEARCH_PAGES = {
    "image_to_image": ":material/image_search:",
    "text_to_image": ":material/photo_library:",
    "text_to_text": ":material/manage_search:",
    "image_to_text": ":material/subtitles:",
}


def show_frame() -> st.Page:
    """The frame of this run; returns the page to run inside it."""
    try:
        st.session_state.setdefault(LANGUAGE_KEY, load_settings().web_language)
    except SystemExit as wrong_settings:  # ends a service at its start; here it would leave an empty page
        st.code(str(wrong_settings), language=None)
        st.stop()
    # A drawn icon, since Streamlit has a browser fetch a named one from the internet.
    st.set_page_config(page_icon=Image.new("RGB", (32, 32), "#2f5d8a"), layout="wide")
    st.html(STYLE)
    page = _choose_page()
    st.sidebar.segmented_control(
        t("language"), list(LANGUAGES), format_func=LANGUAGES.__getitem__, required=True, key=LANGUAGE_KEY
    )
    return page


def run_page(page: Callable[[], None]) -> None:
    """Whatever of the API's errors a page does not catch nearer to its cause ends the page readably."""
    if LANGUAGE_KEY not in st.session_state:
        # Until st.navigation was called once in a process, Streamlit runs the files in pages/ by themselves: so it
        # does when the first visit after a start comes straight to a page's address. Call it, and start over.
        show_frame()
        st.rerun()
    try:
        page()
    except ApiError as error:
        show_error(error)
        st.button(t("try_again"), icon=":material/refresh:")


def _choose_page() -> st.Page:
    searches = [st.Page(f"pages/{name}.py", title=t(f"page_{name}"), icon=icon) for name, icon in SEARCH_PAGES.items()]
    return st.navigation(
        {
            "": [st.Page("pages/home.py", title=t("page_home"), icon=":material/home:", default=True)],
            t("nav_search"): searches,
            t("nav_create"): [st.Page("pages/generate.py", title=t("page_generate"), icon=":material/brush:")],
            t("nav_catalogue"): [
                st.Page("pages/manage_products.py", title=t("page_products"), icon=":material/inventory_2:"),
                st.Page("pages/edit_product.py", title=t("page_product"), visibility="hidden"),
            ],
        }
    )
