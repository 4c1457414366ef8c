"""What stands around every page: navigation, language switch, style, and the readable end of a page that failed."""

from collections.abc import Callable
from typing import NamedTuple

import streamlit as st
from PIL import Image

from tuwen.settings import load_settings
from web.access import show_key_field_if_wanted
from web.cards import STYLE, show_error
from web.client import ApiError
from web.texts import KEPT_LANGUAGE_KEY, LANGUAGE_KEY, LANGUAGES, session_language, t


class PageEntry(NamedTuple):
    """A page of the navigation: `pages/<name>.py`, with the words `page_<name>` and `home_<name>`; a search's
    also `ask_<name>`."""

    name: str
    icon: str
    group: str

    @property
    def file(self) -> str:
        return f"pages/{self.name}.py"


PAGES = (
    PageEntry("hybrid", ":material/search:", "nav_search"),
    PageEntry("image_to_image", ":material/image_search:", "nav_search"),
    PageEntry("text_to_image", ":material/photo_library:", "nav_search"),
    PageEntry("text_to_text", ":material/manage_search:", "nav_search"),
    PageEntry("image_to_text", ":material/subtitles:", "nav_search"),
    PageEntry("generate", ":material/brush:", "nav_create"),
    PageEntry("manage_products", ":material/inventory_2:", "nav_catalogue"),
    PageEntry("import_products", ":material/upload_file:", "nav_catalogue"),
)


def show_frame() -> st.Page:
    """The frame of this run; returns the page to run inside it."""
    try:
        keep_language()
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
    show_key_field_if_wanted()
    return page


def keep_language() -> None:
    """The settings' at first, then what was last chosen; before the switch is drawn."""
    st.session_state.setdefault(KEPT_LANGUAGE_KEY, load_settings().web_language)
    language = st.session_state[KEPT_LANGUAGE_KEY] = session_language()
    if st.session_state.get(LANGUAGE_KEY) != language:  # what is set is sent to the browser, over a click meanwhile
        st.session_state[LANGUAGE_KEY] = language


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
    home = st.Page("pages/home.py", title=t("page_home"), icon=":material/home:", default=True)
    # Without a place in the navigation: it is opened from a product.
    product = st.Page("pages/edit_product.py", title=t("page_edit_product"), visibility="hidden")
    groups = {"": [home, product]}
    for page in PAGES:
        groups.setdefault(t(page.group), []).append(st.Page(page.file, title=t(f"page_{page.name}"), icon=page.icon))
    return st.navigation(groups)
