"""The pages' frame: language, navigation, and the page that was chosen. Start: `streamlit run web_demo.py`.

The pages speak to the API over HTTP alone, through `web_client.py`; they may run on another machine.
"""

import streamlit as st
from PIL import Image

from settings import load_settings
from web_cards import STYLE
from web_text import LANGUAGE_KEY, LANGUAGES, t

SEARCH_PAGES = {
    "image_to_image": ":material/image_search:",
    "text_to_image": ":material/photo_library:",
    "text_to_text": ":material/manage_search:",
    "image_to_text": ":material/subtitles:",
}


def choose_page() -> st.Page:
    searches = [st.Page(f"pages/{name}.py", title=t(f"page_{name}"), icon=icon) for name, icon in SEARCH_PAGES.items()]
    return st.navigation(
        {
            "": [st.Page("pages/home.py", title=t("page_home"), icon=":material/home:", default=True)],
            t("nav_search"): searches,
            t("nav_catalogue"): [
                st.Page("pages/manage_products.py", title=t("page_products"), icon=":material/inventory_2:")
            ],
        }
    )


def show_language_switch() -> None:
    st.sidebar.segmented_control(
        t("language"), list(LANGUAGES), format_func=LANGUAGES.__getitem__, required=True, key=LANGUAGE_KEY
    )


st.session_state.setdefault(LANGUAGE_KEY, load_settings().web_language)
# A drawn icon, since Streamlit has a browser fetch a named one from the internet.
st.set_page_config(page_title="图文 Tuwen", page_icon=Image.new("RGB", (32, 32), "#2f5d8a"), layout="wide")
st.html(STYLE)
page = choose_page()
show_language_switch()
page.run()
