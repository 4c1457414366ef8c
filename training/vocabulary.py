"""The tokenizer of both text towers: Unigram pieces of Chinese and English, bytes for every other character.

Nothing of a title is lost: an unknown character becomes its UTF-8 bytes, which have embeddings of their own.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, CLS, SEP, UNK = "[PAD]", "[CLS]", "[SEP]", "[UNK]"
SPECIAL_TOKENS = (PAD, CLS, SEP, UNK)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
NUMBERS = (
    tuple(str(number) for number in range(100)) + tuple(str(number) for number in range(100, 305, 5)) + ("00", "000")
)
RARE_SCORE = -14.0  # log-probability of the pieces that are added by hand
MAX_TOKENS = 512
MAX_PIECE_LENGTH = 16
# Runs of Chinese characters, of letters and of digits are cut apart, and every other character stands alone.
WORDS = r"\p{Han}+|\p{L}+|\p{N}+|[^\s\p{L}\p{N}]"


def common_characters() -> list[str]:
    """The 3,755 common characters of GB 2312's first level."""
    rows = (bytes([high, low]) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return [character for row in rows if (character := row.decode("gb2312", errors="ignore"))]


def build_tokenizer(texts: Iterable[str], vocab_size: int, cut_chinese: Callable[[str], Iterable[str]]) -> Tokenizer:
    """Unigram (Kudo 2018) with byte fallback, at most `vocab_size` pieces.

    The pieces are the texts' own words, Chinese ones as `cut_chinese` finds them, scored by their frequency.
    (The trainer of `tokenizers` takes only pieces that distinct words share, and breaks frequent English words up.)
    """
    words: Counter[str] = Counter()
    for text in texts:
        for run in re.findall(r"[\u3400-\u9fff]+|[^\W\d_]+", unicodedata.normalize("NFKC", text).lower()):
            words.update(cut_chinese(run) if run >= "\u3400" else [run])
    pieces = _fragments(words) | dict.fromkeys(common_characters(), RARE_SCORE)
    total = sum(words.values())
    room = vocab_size - len(SPECIAL_TOKENS) - len(BYTES) - len(NUMBERS) - len(pieces)
    for word, count in words.most_common():
        if word in pieces:
            pieces[word] = max(pieces[word], math.log(count / total))
        elif room > 0 and len(word) <= MAX_PIECE_LENGTH:
            pieces[word] = math.log(count / total)
            room -= 1
    return _assemble(pieces)


def _fragments(words: Counter[str], count: int = 900) -> dict[str, float]:
    """Letters, and the most frequent runs of two to four Latin letters, to spell words that have no piece."""
    runs: Counter[str] = Counter()
    for word in words:
        if word.isascii():
            runs.update(word[i : i + n] for n in (2, 3, 4) for i in range(len(word) - n + 1))
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {run: RARE_SCORE + len(run) - 2 for run, _ in runs.most_common(count)} | dict.fromkeys(letters, RARE_SCORE)


def _set_text_rules(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)


def _assemble(pieces: dict[str, float]) -> Tokenizer:
    scores = dict.fromkeys(SPECIAL_TOKENS, 0.0)
    scores |= dict.fromkeys((*BYTES, *NUMBERS), RARE_SCORE)
    scores |= {piece: score for piece, score in pieces.items() if piece not in scores}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=SPECIAL_TOKENS.index(UNK), byte_fallback=True))
    _set_text_rules(tokenizer)
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def wrap_for_bert(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same pieces between [CLS] and [SEP], as a transformers tokenizer."""
    wrapped = Tokenizer.from_str(tokenizer.to_str())
    ids = [(token, wrapped.token_to_id(token)) for token in (CLS, SEP)]
    wrapped.post_processor = processors.TemplateProcessing(single=f"{CLS} $A {SEP}", special_tokens=ids)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no type here
        tokenizer_object=wrapped,
        pad_token=PAD,
        cls_token=CLS,
        sep_token=SEP,
        unk_token=UNK,
        model_max_length=MAX_TOKENS,
    )
