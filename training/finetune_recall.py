"""What tuning a CLIP brings: how well it finds pictures by titles and titles by pictures, and which weights do best."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.finetune_pairs import DECODED_AT_ONCE, Pair, opened
from tuwen.encoders.base import Embeddings, PreparedPicture
from tuwen.encoders.transformers_clip import TransformersClip

logger = logging.getLogger(__name__)

RECALL_AT = (1, 5, 10)
MOST_ASKED, MOST_CANDIDATES = 2_000, 5_000  # so that a large catalogue's report takes no longer than its tuning
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the tuned weights in a mixture
ENCODED_AT_ONCE, RANKED_AT_ONCE = 16, 256
ROUNDING = 1e-6  # of a cosine in float32: what is no further apart is as near


def asked_among(asked: Sequence[Pair], others: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Whose titles and pictures are asked for, and these and others that they are looked for among."""
    chance = random.Random(0)
    some = chance.sample(asked, min(len(asked), MOST_ASKED))
    return some, [*some, *chance.sample(others, min(len(others), MOST_CANDIDATES - len(some)))]


def recalls(clip: TransformersClip, asked: Sequence[Pair], among: Sequence[Pair]) -> dict[str, float]:
    """By direction and rank: queries with a hit of their own title, in percent. `among` begins with `asked`."""
    pictures = np.concatenate([clip.encode_prepared(some) for some in _prepared(clip, among)])
    titles = clip.encode_texts([pair.title for pair in among])
    known = {pair.title: number for number, pair in enumerate(among)}
    of = np.array([known[pair.title] for pair in among])
    found: dict[str, float] = {}
    for direction, queries, candidates in (
        ("title → picture", titles, pictures),
        ("picture → title", pictures, titles),
    ):
        before = nearer_ones(queries[: len(asked)], candidates, of)
        found |= {f"{direction} R@{rank}": 100 * float((before < rank).mean()) for rank in RECALL_AT}
    return found


def nearer_ones(queries: Embeddings, candidates: Embeddings, of: NDArray[np.int64]) -> NDArray[np.int64]:
    """[queries]: wrong candidates that are as near as the nearest right one, or nearer. `of`: what a candidate shows,
    and the query of its place. A model that tells nothing apart so finds nothing, nor does one of no numbers."""
    counts = []
    for start in range(0, len(queries), RANKED_AT_ONCE):
        some = queries[start : start + RANKED_AT_ONCE]
        cosines = some @ candidates.T
        is_right = of[start : start + len(some), None] == of
        nearest = np.where(is_right, cosines, -np.inf).max(1, keepdims=True)
        counts.append((~is_right & ~(cosines < nearest - ROUNDING)).sum(1))
    return np.concatenate(counts)


def _prepared(clip: TransformersClip, pairs: Sequence[Pair]) -> Iterator[list[PreparedPicture]]:
    with ThreadPoolExecutor(DECODED_AT_ONCE) as pool:
        for start in range(0, len(pairs), ENCODED_AT_ONCE):
            some = pairs[start : start + ENCODED_AT_ONCE]
            yield list(pool.map(lambda pair: clip.prepare(opened(pair.picture)), some))


def choose_mixture(
    clip: TransformersClip, before: Mapping[str, Tensor], asked: Sequence[Pair], among: Sequence[Pair]
) -> float:
    """Leaves in `clip` the mixture that finds best, and returns its share of the tuned weights. (WiSE-FT, Wortsman and
    others, CVPR 2022: it keeps what the model knew of all else.)"""
    tuned = {name: weights.clone() for name, weights in clip.model.state_dict().items()}
    shares: tuple[float, ...] = (0.0, *SHARES)
    if not all(bool(weights.isfinite().all()) for weights in tuned.values()):
        logger.warning("some tuned weights are no finite numbers, so that none is taken: try a lower --learning-rate")
        shares = (0.0,)
    best_share, best = 0.0, -1.0
    for share in shares:
        _mix(clip.model, before, tuned, share)
        mean = float(np.mean([*recalls(clip, asked, among).values()]))
        logger.info("%3.0f %% of the tuned weights: mean recall %.1f on the part to choose by", 100 * share, mean)
        if mean > best:
            best_share, best = share, mean
    _mix(clip.model, before, tuned, best_share)
    return best_share


def _mix(model: nn.Module, before: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> None:
    mixed = {
        name: torch.lerp(before[name], weights, share) if share and weights.is_floating_point() else before[name]
        for name, weights in tuned.items()
    }
    model.load_state_dict(mixed)
