"""What a text that somebody typed says beside its meaning: attributes that it names, and what it does not want."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_models import NamedAttribute, SearchMode, SearchRequest, SearchTerm, Understood
from tuwen.lexical.attribute_words import Attribute, attributes_in, may_name
from tuwen.lexical.lexicon import Lexicon, Words
from tuwen.lexical.negation import asked_of, may_negate, negates
from tuwen.search.wishes import MOST_ATTRIBUTES, Wishes, unwanted_of
from tuwen.texts import lexical_text, normalise_text

# In shares of a score, which spreads differently in each: chosen on `evaluation/query_files/attributes_tuning.jsonl`.
WEIGHTS = {SearchMode.TEXT_TO_TEXT: 0.5, SearchMode.TEXT_TO_IMAGE: 0.8, SearchMode.HYBRID: 2.0}
# The same, where texts go with the pictures of `terms`: on `composed_tuning.jsonl`.
WEIGHT_OF_TERMS = 0.8

NumberedTerm = tuple[int, SearchTerm]
"""With its place in the request, by which errors name it."""


LEFT_OVER = re.compile(r"(?:^|(?<=\s))[的色]+(?=\s|[\u4e00-\u9fff]|$)|(?:^|(?<=\s))(?:in|of|made of)\s*$")


@dataclass(frozen=True)
class Understanding:
    text: str
    """What is wanted of it, which is searched for."""
    without: tuple[str, ...] = ()
    kind: str = ""
    """What is left of it without the words that name attributes: 沙发 of 红色的沙发. Empty where none does."""
    wishes: Wishes | None = None
    terms: tuple[NumberedTerm, ...] = ()
    """Where some were read: with those that their texts negate."""

    @property
    def as_answer(self) -> Understood | None:
        if self.wishes is None:
            return None
        named = [
            NamedAttribute(word=each.word, kind=each.kind, value=" ".join(filter(None, (each.shade, each.values[0]))))
            for each in self.wishes.wanted
        ]
        return Understood(wanted=self.text, without=list(self.without), attributes=named)


def _kind_of(text: str, attributes: Sequence[Attribute]) -> str:
    if not attributes:
        return ""
    kind = lexical_text(text)
    for each in reversed(attributes):
        kind = f"{kind[: each.begin]} {kind[each.end :]}"
    return " ".join(LEFT_OVER.sub(" ", kind).split())


def needs_reading(request: SearchRequest) -> bool:
    """Whether its text may say more; a look at its characters, which the event loop can bear."""
    if request.terms:
        reads = request.negation or request.weighs_attributes
        return reads and any(term.text is not None for term in request.terms)
    if request.text is None or request.mode not in WEIGHTS:
        return False
    text = normalise_text(request.text)
    return (request.negation and may_negate(text)) or (request.weighs_attributes and may_name(lexical_text(text)))


def understand(request: SearchRequest, lexicon: Lexicon) -> Understanding:
    """Loads jieba, if this is the first that needs it: not for the event loop."""
    if request.terms:
        return _of_terms(request, lexicon.words)
    assert request.text is not None, "it has been looked at"
    words = lexicon.words
    wanted, without = request.text, tuple[str, ...]()
    if request.negation:
        asked = asked_of(normalise_text(request.text))
        if asked.without:
            wanted, without = asked
    # 不要红色的, and nothing else: red is not wished for.
    wishes_nothing = request.negation and not without and negates(normalise_text(request.text))
    attributes = _attributes_once(wanted, words) if request.weighs_attributes and not wishes_nothing else ()
    if not attributes and not without:
        return Understanding(request.text)
    unwanted = tuple(unwanted_of(phrase, words) for phrase in without)
    wishes = Wishes(
        attributes,
        unwanted,
        words,
        WEIGHTS[SearchMode.HYBRID if request.is_fused else request.mode],
        phrase=lexical_text(wanted),
    )
    return Understanding(wanted, without, _kind_of(wanted, attributes), wishes)


def _attributes_once(text: str, words: Words) -> tuple[Attribute, ...]:
    """The first of each."""
    named = attributes_in(lexical_text(text), words)
    once = {each[:3]: each for each in reversed(named)}
    return tuple(each for each in named if once[each[:3]] is each)[:MOST_ATTRIBUTES]


def read_terms(terms: Sequence[SearchTerm]) -> tuple[NumberedTerm, ...]:
    """What a text negates becomes a term of its own, which is not wanted: 绿色 不要皮质 is 绿色, and not 皮质."""
    return tuple(part for number, term in enumerate(terms) for part in _parts(number, term))


def _parts(number: int, term: SearchTerm) -> Iterator[NumberedTerm]:
    if term.text is None or not may_negate(normalise_text(term.text)):
        yield number, term
        return
    subject = (
        "thing " if term.text.isascii() else "东西 "
    )  # which a term has in the others: 不要皮质 by itself is whole
    asked = asked_of(normalise_text(subject + term.text))
    wanted = asked.wanted.removeprefix(subject.strip()).strip(" ,，、")
    if not asked.without or (term.weight < 0 and wanted):
        yield number, term
        return
    if wanted:
        yield number, term.model_copy(update={"text": wanted})
    for phrase in asked.without:
        yield number, term.model_copy(update={"text": phrase, "weight": -abs(term.weight)})


def _of_terms(request: SearchRequest, words: Words) -> Understanding:
    """What their texts name is wanted, or not, by the sign of the weight."""
    terms = read_terms(request.terms) if request.negation else tuple(enumerate(request.terms))
    texts = [(term.text, term.weight > 0) for _, term in terms if term.text is not None]
    wanted = "、".join(text for text, is_wanted in texts if is_wanted)
    without = tuple(text for text, is_wanted in texts if not is_wanted) if request.negation else ()
    attributes = _attributes_once(wanted, words) if request.weighs_attributes else ()
    if not attributes and not without:
        return Understanding("", terms=terms)
    unwanted = tuple(unwanted_of(phrase, words) for phrase in without)
    weight = WEIGHTS.get(request.mode, WEIGHT_OF_TERMS)
    wishes = Wishes(attributes, unwanted, words, weight, phrase=lexical_text(wanted))
    return Understanding(wanted, without, wishes=wishes, terms=terms)
