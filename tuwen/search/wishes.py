"""What a query's words wish of a product beside its score: attributes that it should have, and what it should not show.

A product's title and the texts among its attributes are read: what they agree with lifts it, what they contradict
lowers it, and silence does nothing. A title's first part speaks of the product, what follows of its details: a 蓝色沙发
红色抱枕 is blue.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from tuwen.lexical.attribute_words import Attribute, attributes_in
from tuwen.lexical.lexicon import Words
from tuwen.lexical.negation import asked_of
from tuwen.lexical.terms import HAN, jieba
from tuwen.texts import lexical_text

# Chosen on `evaluation/query_files/attributes_tuning.jsonl` and `negation_tuning.jsonl`.
IN_DETAIL, OF_FURTHER, CONTRADICTED = 0.4, 0.6, -1.0
SHOWN, SHOWN_IN_DETAIL, SAID_TO_LACK = -1.0, -0.4, 0.3
LEAST_LIFT = -0.99  # what is pushed down stays in its order
NEAR_ENOUGH = 0.5
KEPT_TEXTS = 16_384
SHORTEST_PLURAL = 3
LONGEST_TEXT, MOST_TEXTS = 200, 12  # characters, and texts of a product's attributes
MOST_ATTRIBUTES = 8  # of a text
MAIN_PART = re.compile(r"^\s*(?:with\s+)?(.+?)(?=\s+(?:with|on|in|and)\s|\s*[,，;；(（/|]|$)", re.IGNORECASE)
LATIN = re.compile(r"[^\W_]+")
UNLESS_GIVEN = r"(?!\s+(?:shipping|delivery|returns?|gifts?|assembly|installation)\b)"
# Of attributes, by their names: what their value says is said of the product itself.
NAMES = re.compile("colou?r|颜色|色|材质|材料|面料|material|fabric|尺寸|大小|规格|size", re.IGNORECASE)


class Said(NamedTuple):
    """What one text of a product says."""

    text: str
    of_itself: tuple[Attribute, ...]
    in_detail: tuple[Attribute, ...]
    lacks: tuple[str, ...]
    """无扶手: what it says that the product has not."""


class Read(NamedTuple):
    """What a product's texts say, the title first, each with whether it speaks of the product itself."""

    said: Sequence[tuple[Said, bool]]
    telling: Sequence[tuple[Said, bool]]
    """Those that name attributes."""
    kinds: Set[str]
    """Of all of these."""


class Unwanted(NamedTuple):
    """One thing that is not wanted."""

    phrase: str
    """As `lexical_text` has it."""
    nouns: tuple[str, ...]
    """What a text must have to show it, beside the attributes: 扶手 of 红色扶手."""
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, eq=False)
class Wishes:
    wanted: tuple[Attribute, ...]
    unwanted: tuple[Unwanted, ...]
    words: Words
    weight: float
    """Of the wanted ones, in shares of a score."""
    phrase: str
    """The wanted text as it stands: a title that has it says all of it."""

    def lift(self, read: Read) -> float:
        """Of a product, in shares of its score."""
        wanted = sum(_agreement(each, read.telling) for each in self.wanted if each.kind in read.kinds)
        wanted += bool(self.wanted) and self.phrase in read.said[0][0].text
        unwanted = sum(_shown(each, read.said) for each in self.unwanted)
        return max(LEAST_LIFT, self.weight * wanted + unwanted)


def read_all(texts: Mapping[int, tuple[str, Mapping[str, Any]]], words: Words) -> dict[int, Read]:
    """`texts`: of each product its title and attributes."""
    return {product_id: read_product(title, attributes, words) for product_id, (title, attributes) in texts.items()}


def read_product(title: str, attributes: Mapping[str, Any], words: Words) -> Read:
    said = [(_said(title, words), True)]
    said += [(_said(text, words), _is_of_itself(name)) for name, text in _texts(attributes)]
    telling = [each for each in said if each[0].of_itself or each[0].in_detail]
    return Read(said, telling, {each.kind for text, _ in telling for each in (*text.of_itself, *text.in_detail)})


def unwanted_of(phrase: str, words: Words) -> Unwanted:
    text = lexical_text(phrase)
    attributes = tuple(attributes_in(text, words))
    rest = text
    for each in reversed(attributes):
        rest = f"{rest[: each.begin]} {rest[each.end :]}"
    nouns = [noun for run in re.findall(rf"[{HAN}]+|[^\W_{HAN}]+", rest) for noun in _nouns(run)]
    return Unwanted(text, tuple(dict.fromkeys(nouns)), attributes)


def _nouns(run: str) -> Iterator[str]:
    if run.isascii():
        yield _singular(run)
        return
    yield from (word for word in jieba().cut(run) if word not in ("的", "色"))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > SHORTEST_PLURAL and word.endswith("s") and not word.endswith("ss") else word


def _said(text: str, words: Words) -> Said:
    text = text[:LONGEST_TEXT]
    said: Said | None = words.read.get(text)
    if said is None:
        if len(words.read) >= KEPT_TEXTS:
            words.read.clear()
        said = words.read[text] = _read(text, words)
    return said


def _read(text: str, words: Words) -> Said:
    text = lexical_text(text)
    found = attributes_in(text, words)[:MOST_ATTRIBUTES]
    main = text.split(" ", 1)[0] if re.match(f"[{HAN}]", text) else (MAIN_PART.match(text) or [text])[0]
    of_itself = tuple(each for each in found if each.end <= len(main))
    return Said(text, of_itself, tuple(found[len(of_itself) :]), asked_of(text).without)


def _texts(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    texts = [(name, value) for name, value in attributes.items() if isinstance(value, str) and value]
    texts += [
        (name, each)
        for name, value in attributes.items()
        if isinstance(value, list)
        for each in value
        if isinstance(each, str)
    ]
    yield from texts[:MOST_TEXTS]


@lru_cache(KEPT_TEXTS)
def _is_of_itself(name: str) -> bool:
    return bool(NAMES.search(name))


def _agreement(wanted: Attribute, said: Sequence[tuple[Said, bool]]) -> float:
    """From -1 to 1. Who speaks of the product itself first has the say; others agree, and never contradict."""
    agrees, contradicted = 0.0, False
    for text, of_itself in said:
        main = [each for each in text.of_itself if each.kind == wanted.kind] if of_itself else []
        for number, each in enumerate(main):
            agrees = max(agrees, each.agreement(wanted) * (OF_FURTHER if number else 1.0))
        contradicted = contradicted or (bool(main) and not any(each.agreement(wanted) for each in main))
        others = text.in_detail if of_itself else (*text.of_itself, *text.in_detail)
        for each in others:
            if each.kind == wanted.kind:
                agrees = max(agrees, IN_DETAIL * each.agreement(wanted))
    return agrees + (CONTRADICTED if contradicted else 0.0)


def _shown(unwanted: Unwanted, said: Sequence[tuple[Said, bool]]) -> float:
    shown = 0.0
    for text, of_itself in said:
        if any(unwanted.phrase in each or each in unwanted.phrase for each in text.lacks):
            return SAID_TO_LACK
        if any(_is_said_to_lack(text.text, noun) for noun in unwanted.nouns):
            return SAID_TO_LACK
        if unwanted.nouns:
            of_all = (*text.of_itself, *text.in_detail)
            if all(_has(text.text, noun) for noun in unwanted.nouns) and _all_agree(unwanted.attributes, of_all):
                shown = SHOWN
        elif unwanted.attributes and of_itself and _all_agree(unwanted.attributes, text.of_itself):
            shown = SHOWN
        elif unwanted.attributes and _all_agree(unwanted.attributes, (*text.of_itself, *text.in_detail)):
            in_detail = SHOWN if unwanted.attributes[0].kind == "material" else SHOWN_IN_DETAIL
            shown = min(shown, in_detail)
    return shown


def _all_agree(unwanted: Collection[Attribute], said: Collection[Attribute]) -> bool:
    """Each, with one of these of its kind; near is not enough."""
    return all(
        any(each.kind == not_that.kind and each.agreement(not_that) > NEAR_ENOUGH for each in said)
        for not_that in unwanted
    )


def _is_said_to_lack(text: str, noun: str) -> bool:
    """无糖 and sugar-free, which are words: `asked_of` takes nothing out of them."""
    if noun.isascii():
        return bool(
            re.search(
                rf"\b(?:no|non|zero)[- ]{re.escape(noun)}s?\b|\b{re.escape(noun)}s?[- ]free\b{UNLESS_GIVEN}", text
            )
        )
    return bool(re.search(rf"(?:[无免]|零(?![钱食件售配部])|(?<![\d.])0|不[含加添带]){re.escape(noun)}", text))


def _has(text: str, noun: str) -> bool:
    if not noun.isascii():
        return noun in text
    return any(_singular(word) == noun for word in LATIN.findall(text))
