"""The API key that a session acts with: the one that its visitor gives, or the pages' own (API_KEY, API_KEY_FILE)."""

import streamlit as st

from tuwen.settings import load_settings
from web.client import ApiError
from web.texts import t

GIVEN_KEY, FIELD, KEY_WANTED = "api_key", "api_key_field", "api_key_wanted"
OF_KEYS = {"needs_key", "unknown_key", "revoked_key", "expired_key", "missing_scope"}


def session_key() -> str:
    """Empty: none."""
    given = str(st.session_state.get(GIVEN_KEY, ""))
    try:
        return load_settings().key_to_send(given)
    except ValueError as error:
        raise ApiError(t("api_key_not_ascii") if given else str(error), code="unknown_key") from error


def show_key_field_if_wanted() -> None:
    """In the frame, so that what is given lasts from page to page."""
    if st.session_state.get(KEY_WANTED):
        _show_key_field()


def ask_for_key(error: ApiError) -> None:
    """Where that is what the API lacks."""
    if error.code not in OF_KEYS:
        return
    st.info(t("api_key_hint"), icon=":material/key:")
    if not st.session_state.get(KEY_WANTED):
        st.session_state[KEY_WANTED] = True
        _show_key_field()


def _show_key_field() -> None:
    """First by a page, then by the frame: to Streamlit two fields, so that the value is kept beside them."""
    given = st.session_state.get(GIVEN_KEY, "")
    st.sidebar.text_input(t("api_key"), given, type="password", key=FIELD, autocomplete="off", on_change=_keep_key)


def _keep_key() -> None:
    st.session_state[GIVEN_KEY] = st.session_state[FIELD].strip()
