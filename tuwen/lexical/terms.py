"""The terms of a text, by which products are found word by word. Knows no database.

Of Chinese: each character, each pair of neighbours (bigram), words of three and more by jieba, and each pair in pinyin,
behind a `~`. Of letters and digits: the whole without its separators (xr500a of XR-500A, but 3.5mm), and its parts.
A dictionary of the shop's own has no say here, only in queries (`lexicon.py`): products need not be looked through
again for it.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tuwen.cores import keep_what_is_loaded
from tuwen.texts import lexical_text

if TYPE_CHECKING:  # both are loaded when they are needed: 1.5 s and 100 MB that a start need not wait for
    import rjieba

LOADING = threading.Lock()  # by several searches at once, of which each is the first
VERSION = 2
"""Of what this module makes of a product. Raised, all products' terms are made anew."""
TERM_LENGTH = 64
MOST_TERMS = 400  # of a product: a title and a sku have far fewer, attributes may have 32 KiB
PINYIN = "~"
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f"
LATIN = rf"[^\W_{HAN}]+"
RUNS = re.compile(rf"[{HAN}]+|{LATIN}(?:[-._/+]{LATIN})*")
SEPARATORS = re.compile(r"[-._/+]")
POINT = re.compile(r"(?<=\d)\.(?=\d)")
PARTS = re.compile(r"\d+|[^\W\d_]+")
# What a term says of the product that has it, by where it stands; 100 is a title's, of a usual length.
TITLE, SKU, CATEGORY, ATTRIBUTES = 1.0, 1.0, 0.5, 0.4
PAIR, SINGLE, SOUND, PART = 1.0, 0.3, 0.6, 0.6
# BM25's saturation by length (Robertson and Zaragoza, 2009), with k1 = 1.2 and b = 0.5 of a title of 12 characters.
K1, B, USUAL_LENGTH = 1.2, 0.5, 12


def runs_of(text: str) -> list[str]:
    """Chinese in one piece, and what has letters and digits with its separators; `text` as `lexical_text` has it."""
    return RUNS.findall(text)


def is_han(run: str) -> bool:
    return "\u3007" <= run[0] <= "\u9fff" or run[0] >= "\U00020000"


def terms_of_product(
    title: str, sku: str | None, category: str | None, attributes: Mapping[str, Any]
) -> dict[str, int]:
    """Each term with its impact: how much it adds to the score of a query that has it, as a share of its own weight,
    in hundredths."""
    found: dict[str, float] = {}
    fields = [(title, TITLE), (sku or "", SKU), (category or "", CATEGORY)]
    fields += [(text, ATTRIBUTES) for text in texts_in(attributes)]
    for text, weight in fields:
        normalised = lexical_text(text)
        saturation = (K1 + 1) / (1 + K1 * (1 - B + B * len(normalised) / USUAL_LENGTH))
        for term, share in _terms_of(normalised):
            if len(found) >= MOST_TERMS:
                break
            if len(term) <= TERM_LENGTH:
                found[term] = max(found.get(term, 0.0), weight * share * saturation)
    return {term: max(1, round(100 * impact)) for term, impact in found.items()}


def _terms_of(text: str) -> Iterator[tuple[str, float]]:
    for run in runs_of(text):
        if is_han(run):
            yield from ((character, SINGLE) for character in run)
            yield from ((pair, PAIR) for pair in pairs_of(run))
            yield from ((word, PAIR) for word in jieba().cut_for_search(run) if len(word) > 2)  # noqa: PLR2004
            yield from ((sound, SOUND) for sound in sounds_of(run))
        else:
            yield joined(run), PAIR
            yield from ((part, PART) for part in parts_of(run))


def pairs_of(run: str) -> list[str]:
    return [first + second for first, second in pairwise(run)]


def sounds_of(run: str) -> list[str]:
    """Of Chinese, each pair in pinyin without tones: ~shafa of 沙发."""
    syllables = lazy_pinyin()(run)
    return [f"{PINYIN}{first}{second}" for first, second in pairwise(syllables)]


def joined(run: str) -> str:
    """Of letters and digits, without separators; but 1.5 is not 15, where 305.003.31 is a number of an article."""
    return (
        ".".join(SEPARATORS.sub("", part) for part in POINT.split(run))
        if len(POINT.findall(run)) == 1
        else (SEPARATORS.sub("", run))
    )


def parts_of(run: str) -> list[str]:
    """Of letters and digits: what stands between separators, and where letters and digits meet."""
    pieces = SEPARATORS.split(run)
    finer = [part for piece in pieces for part in PARTS.findall(piece)]
    return list(dict.fromkeys(part for part in (*pieces, *finer) if part != run))


def texts_in(value: object) -> Iterator[str]:
    """Of attributes, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(each)


def lazy_pinyin() -> Callable[[str | list[str]], list[str]]:
    """pypinyin's own, without tones."""
    with LOADING:
        return _loaded_pinyin()


@cache
def _loaded_pinyin() -> Callable[[str | list[str]], list[str]]:
    from pypinyin import lazy_pinyin as syllables_of  # noqa: PLC0415

    syllables_of("沙发")  # reads its tables: 190,000 objects, which no search is to be held up for again and again
    keep_what_is_loaded()
    return syllables_of


@cache
def jieba() -> "rjieba.Jieba":
    """Several threads may use it."""
    import rjieba  # noqa: PLC0415

    return rjieba.Jieba()
