"""The language of a session, run by Streamlit's own test of apps."""

import pytest
from streamlit.testing.v1 import AppTest

from web.texts import LANGUAGE_KEY, TEXTS

SCRIPT = """
import streamlit as st
from web.frame import keep_language
from web.texts import LANGUAGE_KEY, LANGUAGES, t

keep_language()
st.write(t("try_again"))
st.segmented_control("switch", list(LANGUAGES), required=True, key=LANGUAGE_KEY)
"""


def test_a_run_that_begins_with_nothing_chosen_keeps_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUWEN_ENV_FILE", "")
    app = AppTest.from_string(SCRIPT, default_timeout=60).run()
    language = "zh"
    for chosen in ("en", None, None, "zh", None, "en", None):
        language = chosen or language
        app.session_state[LANGUAGE_KEY] = chosen
        app.run()
        assert not app.exception
        assert app.markdown[0].value == getattr(TEXTS["try_again"], language)
        assert app.session_state[LANGUAGE_KEY] == language


def test_the_switch_is_set_from_here_only_where_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began before a click would send the language of before over it."""
    monkeypatch.setenv("TUWEN_ENV_FILE", "")
    app = AppTest.from_string(SCRIPT, default_timeout=60).run()
    sent = [bool(app.run().button_group[0].proto.set_value) for _ in range(2)]
    assert sent == [False, False]
