"""One text, however it was typed."""

import sys
import unicodedata

import pytest

from tuwen.texts import canonical_text, lexical_text, normalise_text

FAMILY, BURNING_HEART, WAVING = "👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👋🏽"


@pytest.mark.parametrize(
    ("typed", "normalised"),
    [
        ("木製書櫃", "木制书柜"),
        ("红色\u200b沙\u00ad发\ufeff", "红色沙发"),
        ("\u202e红色\u2066 沙发", "红色 沙发"),
        ("ＡＢＣ－１２　㎡", "ABC-12 m2"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("\u00a0red\t sofa\u3000", "red sofa"),
        ("a\u200db\u200d", "ab"),  # joins nothing
        ("葛\U000e0100城\u034f", "葛城"),
        (f"{FAMILY} {BURNING_HEART} {WAVING}\u200d", f"{FAMILY} {BURNING_HEART} {WAVING}"),
        ("乾燥 乾隆", "干燥 乾隆"),  # by words, not by characters
        ("\u200b\u3164\ufeff", ""),
    ],
)
def test_what_looks_the_same_is_the_same(typed: str, normalised: str) -> None:
    assert normalise_text(typed) == normalised


def test_no_character_is_left_half_normalised() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) != "Cs":
            once = canonical_text(character)
            assert once == character or canonical_text(once) == once, hex(code)


def test_skus_keep_their_script_and_words_lose_their_case() -> None:
    assert canonical_text("書-Ａ") == "書-A"
    assert lexical_text("Ｌamp 書") == "lamp 书"
