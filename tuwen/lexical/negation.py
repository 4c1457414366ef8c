"""What a text does not want: 沙发 不带扶手, 不要红色的沙发, sofa without armrests. By rules, without a model.

What is negated ends with its clause, at 的, or at an English preposition; where nothing would be left to look for
(不要红色沙发) its first word alone is negated. Knows no product.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tuwen.lexical.attribute_words import attributes_in
from tuwen.lexical.lexicon import Words
from tuwen.lexical.terms import HAN, jieba
from tuwen.texts import lexical_text

# Not 有没有, 要不要, 是不是, which ask, nor 没有人, 特别要, 扣除 and 除湿机外壳; nor no. 5 and no 5, nor non-stick and
# no-frost, which are words.
IN_CHINESE = re.compile(
    "不想要|(?<!要)不要|不带|不含|不喜欢|(?<!是)不是|(?<!有)没有(?!人)|没带|(?<=.)(?<!能)去掉|除了"
    "|(?<![分差区类级特识辨鉴性个告送离])别[要带]"
    r"|(?<![去消扣清删免解排根])除(?=[^\s,，]{1,8}?(?:以外|之外|(?<![户室内门车])外(?:的|\s|$)))"
)
# Behind what is negated: 黑色除外, 红色的不要.
BEHIND = re.compile(
    r"([^\s,，.。;；!！?？、]{1,8}?)的?(?:(?<![去消扣清删免解排根拆扫移切剔铲破])除外(?=$|[\s,，.。;；)）的])|(?<!要)不要\s*$)"
)
# One character is a negation where jieba has it as a word by itself: not in 无线, 非洲, 无人机.
SHORT = re.compile("[无非没]")
IN_ENGLISH = re.compile(
    r"(?<![\w'’-])(?:without|w/o|excluding|except(?: for)?|any colou?r but|(?:is|are)(?:n['’]?t| not)"
    r"|do(?:es)?(?:n['’]?t| not) (?:want|have|like|need)|no(?!\s*[.\d№])|not)\s+(?=\w)",
    re.I,
)
NON = re.compile(r"(?<![\w'’-])non-(?!iron\b)(\w+)(?![\w-])", re.I)
CLAUSE = re.compile(r"[^\s,，.。;；!！?？()（）]+")
ENGLISH_CLAUSE = re.compile(r"[^,，.。;；!！?？()（）]+")
ENGLISH_END = re.compile(r"\b(?:but|for|in|with|that|which|from|on|under|please)\b", re.I)
ARTICLES = re.compile(r"^(?:(?:a|an|any|the|of|too|so|very|made (?:of|from))\s+)+", re.I)
AND = re.compile("和|或者?|与|以?及|跟|还有")
ENUMERATED = re.compile("(?<=.)、(?=.)|(?<=色)(?=[^的和或与及跟者以]{1,2}色)")
ENGLISH_AND = re.compile(r"\s+(?:and|or|nor)\s+|\s*/\s*", re.I)
BESIDES = re.compile("(?:以外|之外|(?<!户)外|(?:其[他它余])?都(?:行|可以?|要|好)|也|还|又|且)$")
HAVING = frozenset({"带", "带有", "有", "含", "含有", "太", "特别", "过于"})
# 不要红色要蓝色的: what is wanted after all; not in 需要 and 都要.
BUT = re.compile("(?<![需主重必都])要")
LEFT_OVER = re.compile(
    r"[(（]\s*[)）]|^[\s,，.。;；、的要]+|(?:[\s,，.。;；、的要]|\s(?:that|which|with|and|or|but))+$", re.I
)
BLANKS = re.compile(r"\s+")
MOST_PARTS = 5
WORD, LONGEST_THING = 2, 12  # characters


class Asked(NamedTuple):
    wanted: str
    without: tuple[str, ...]


class _Part(NamedTuple):
    begin: int
    end: int
    without: tuple[str, ...]


def asked_of(text: str) -> Asked:
    """`text` as `normalise_text` makes it. Without a negation it is wanted as it is."""
    if not may_negate(text):
        return Asked(text, ())
    wanted, at, without = "", 0, list[str]()
    for part in _parts(text):
        if part.begin >= at and len(without) < MOST_PARTS:
            wanted, at = f"{wanted}{text[at : part.begin]} ", part.end
            without += part.without
    wanted = _tidy(wanted + text[at:])
    if wanted or not without:
        return Asked(wanted, tuple(dict.fromkeys(without))) if without else Asked(text, ())
    first = _first_word(text)
    return first if first.without and first.wanted else Asked(text, ())


def may_negate(text: str) -> bool:
    return "除外" in text or any(sign.search(text) for sign in (IN_CHINESE, SHORT, IN_ENGLISH, NON))


def negates(text: str) -> bool:
    """Though nothing may be left that is wanted: 不要红色的."""
    return may_negate(text) and any(True for _ in _parts(text))


def _parts(text: str) -> Iterator[_Part]:
    found = [_in_chinese(text, each) for each in IN_CHINESE.finditer(text)]
    found += [_in_english(text, each) for each in IN_ENGLISH.finditer(text)]
    found += [_behind(each) for each in BEHIND.finditer(text)]
    found += [_Part(*each.span(), (each[1],)) for each in NON.finditer(text) if _begins_with_attribute(each[1])]
    if SHORT.search(text):
        found += _short_ones(text)
    yield from sorted((part for part in found if part.without), key=lambda part: part.begin)


def _in_chinese(text: str, negation: re.Match[str]) -> _Part:
    begin = negation.end()
    while begin < len(text) and text[begin].isspace():
        begin += 1
    clause = CLAUSE.match(text, begin)
    if clause is None:
        return _Part(negation.start(), negation.end(), ())
    end = clause.end()
    for another in (IN_CHINESE.search(text, begin, end), IN_ENGLISH.search(text, begin, end)):
        end = min(end, another.start()) if another else end
    if but := BUT.search(text, begin, end):
        end = but.start()
    without, at = [], begin
    for piece in _pieces(text[begin:end]):
        word, of, _ = piece.partition("的")
        without.append(_thing_of(word))
        at = text.index(piece, at) + (len(word) + len(of) if of else len(piece))
    return _Part(negation.start(), at, tuple(filter(None, without)))


def _pieces(phrase: str) -> Iterator[str]:
    """Of 扶手、靠背和红色蓝色 four; 埃及 and 和服 are words."""
    for part in ENUMERATED.split(phrase):
        piece = ""
        for word in jieba().cut(part) if AND.search(part) else [part]:
            if piece and AND.fullmatch(word):
                yield piece
                piece = ""
            else:
                piece += word
        yield piece


def _thing_of(phrase: str) -> str:
    """扶手 of 带扶手, 大 of 太大, 黑色 of 黑色都行."""
    thing = BESIDES.sub("", phrase)
    first = next(iter(jieba().cut(thing)), "") if thing[:1] in "带有含太特过" else ""
    first = "太" if first in ("太大", "太小") else first
    return thing[len(first) :] or thing if first in HAVING else thing


def _behind(negation: re.Match[str]) -> _Part:
    """What names attributes, all that are joined, or the last word."""
    before = negation[1]
    named = attributes_in(lexical_text(before), Words()) if len(lexical_text(before)) == len(before) else []
    if not named:
        thing = jieba().cut(before)[-1]
        return _Part(negation.end(1) - len(thing), negation.end(), (thing,))
    things = [before[named[-1].begin :]]
    begin = named[-1].begin
    for each in reversed(named[:-1]):
        if not re.fullmatch(f"的?(?:{AND.pattern})?", before[each.end : begin]):
            break
        begin = each.begin
        things.insert(0, before[begin : each.end])
    return _Part(negation.start(1) + begin, negation.end(), tuple(things))


def _in_english(text: str, negation: re.Match[str]) -> _Part:
    clause = ENGLISH_CLAUSE.match(text, negation.end())
    if clause is None:
        return _Part(negation.start(), negation.end(), ())
    end = clause.end()
    for another in (ENGLISH_END, IN_ENGLISH, IN_CHINESE):
        if found := another.search(text, negation.end(), end):
            end = found.start()
    words, at = [], negation.end()
    for piece in ENGLISH_AND.split(text[negation.end() : end]):
        named = _noun_of(ARTICLES.sub("", piece.strip()))
        words.append(named)
        at = text.index(named, at) + len(named)
    return _Part(negation.start(), at, tuple(filter(None, words)))


def _noun_of(phrase: str) -> str:
    """English has no 的 that ends what is negated: a word, and what names an attribute before it."""
    words = phrase.split()
    for number, word in enumerate(words, start=1):
        if not attributes_in(lexical_text(word), Words()):
            return " ".join(words[:number])
    return phrase


def _short_ones(text: str) -> Iterator[_Part]:
    found = 0
    for run in re.finditer(f"[{HAN}]+", text):
        at = run.start()
        for word in jieba().cut(run[0]):
            begin, at = at, at + len(word)
            if not SHORT.fullmatch(word) or found >= MOST_PARTS:
                continue
            following = _first_of(text[at : min(run.end(), at + LONGEST_THING)])
            if following and not SHORT.fullmatch(following) and (word != "非" or _begins_with_attribute(following)):
                found += 1
                yield _Part(begin, at + len(following), (following,) if following != "的" else ())


def _first_of(run: str) -> str:
    """Its first word, such that an attribute and the last word of two characters stay whole: of 实木床 实木, of
    扶手椅子 扶手, and of 皮沙发 皮, though jieba knows 木床, 扶手椅 and 皮沙发."""
    first = next(iter(jieba().cut(run)), "")
    named = attributes_in(lexical_text(run), Words())
    if named and not named[0].begin and len(first) <= named[0].end < len(run):
        return run[: named[0].end]
    before, last = run[:-WORD], run[-WORD:]
    if len(run) - len(first) < WORD and before and len(jieba().cut(last)) == 1:
        is_word = len(before) >= WORD and len(jieba().cut(before)) == 1
        if is_word or _begins_with_attribute(before):
            return before
    return first


def _begins_with_attribute(word: str) -> bool:
    named = attributes_in(lexical_text(word), Words())
    return bool(named) and not named[0].begin


def _first_word(text: str) -> Asked:
    """Of what is negated first, and what else there is: of 不要红色沙发, no leather sofa and no red or blue sofa."""
    negation = IN_CHINESE.match(text) or IN_ENGLISH.match(text)
    if negation is None:
        return Asked("", ())
    rest = text[negation.end() :].lstrip()
    if not rest.isascii():
        rest = BESIDES.sub("", rest)
        clause = CLAUSE.match(rest)
        first = _first_of(clause[0][:LONGEST_THING]) if clause else ""
        return Asked(_tidy(rest[len(first) :]), (first,) if first else ())
    phrase, _, further = rest.partition(",")
    *others, last = ENGLISH_AND.split(phrase)
    first, _, wanted = ARTICLES.sub("", last).partition(" ")
    further = _tidy(further)
    more = asked_of(further) if further.count(",") < MOST_PARTS else Asked(further, ())
    if not more.without and negates(further):  # no red, no blue
        more = Asked("", ())
    return Asked(_tidy(f"{wanted} {more.wanted}"), (*map(_tidy, others), first, *more.without))


def _tidy(text: str) -> str:
    return BLANKS.sub(" ", LEFT_OVER.sub("", text))
