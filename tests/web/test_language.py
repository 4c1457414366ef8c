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


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_run_that_begins_with_nothing_chosen_keeps_the_language(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUWEN_ENV_FILE", "")
    app = AppTest.from_string(SCRIPT, default_timeout=60).run()
    for chosen in (language, None, None):
        app.session_state[LANGUAGE_KEY] = chosen
        app.run()
        assert not app.exception
        assert app.markdown[0].value == getattr(TEXTS["try_again"], language)
        assert app.session_state[LANGUAGE_KEY] == language
