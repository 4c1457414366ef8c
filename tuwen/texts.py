"""Texts as they are compared: what two people type for the same title, query, category or sku is one text here.

What is stored stays as it was typed. Knows nothing of products, and asks nobody.
"""

import re
import unicodedata
from functools import cache

import opencc

ZERO_WIDTH_JOINER = "\u200d"
VARIATION_SELECTOR_16, SKIN_TONES = "\ufe0f", {chr(code) for code in range(0x1F3FB, 0x1F400)}
# Invisible, too, though Unicode's category of these is another one: fillers, joiners of marks, selectors of variants.
FILLERS = {"\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u3164", "\uffa0"}
VARIANT_SELECTORS = {*map(chr, range(0xFE00, 0xFE0E)), *map(chr, range(0xE0100, 0xE01F0))}
INVISIBLE = FILLERS | VARIANT_SELECTORS
SURROGATES = re.compile("[\ud800-\udfff]")


def normalise_text(text: str) -> str:
    """What titles, queries and categories are encoded and compared by: `canonical_text` in simplified Chinese."""
    return simplified(canonical_text(text))


def canonical_text(text: str) -> str:
    """What tells skus apart: without what nobody sees, in one width and composition (NFKC), with single spaces.

    No dictionary has a say here: a newer one must not make two skus of one, or one of two.
    """
    visible = text if text.isascii() else unicodedata.normalize("NFKC", _without_invisible(text))
    return " ".join(visible.split())


def words_of(text: str) -> list[str]:
    """What is looked up in a `lexical_text`, each once."""
    return list(dict.fromkeys(lexical_text(text).split()))


def lexical_text(text: str) -> str:
    """`normalise_text` in one case, in which words are found whatever case they have."""
    return normalise_text(text).casefold()


def simplified(text: str) -> str:
    return text if text.isascii() else _dictionary().convert(text)


def encodable(text: str) -> str:
    """With U+FFFD for each half of a character, which JSON can spell and UTF-8 can't: for answers."""
    return SURROGATES.sub("\ufffd", text)


def _without_invisible(text: str) -> str:
    """Without format characters (Unicode's Cf), but for the joiners that make one emoji of several."""
    kept: list[str] = []
    for place, character in enumerate(text):
        if character == ZERO_WIDTH_JOINER:
            is_kept = bool(kept) and _is_of_emoji(kept[-1]) and _is_of_emoji(text[place + 1 : place + 2])
        else:
            is_kept = unicodedata.category(character) != "Cf" and character not in INVISIBLE
        if is_kept:
            kept.append(character)
    return "".join(kept)


def _is_of_emoji(character: str) -> bool:
    if character == VARIATION_SELECTOR_16 or character in SKIN_TONES:
        return True
    return bool(character) and unicodedata.category(character) == "So"


@cache
def _dictionary() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")  # 30 ms; several threads may use one
