"""A query of several terms, each with a weight, as one vector: this sofa, but red; like these, not like that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_models import SearchMode, SearchTerm
from tuwen.encoders.base import Vector
from tuwen.errors import InvalidInput

# CLIP's texts are all nearer to each other than to any picture, and so are its pictures: what a text adds to a picture
# is how it differs from one that says nothing, so many times.
SAYS_NOTHING, BESIDE_PICTURES = "商品", 1.0
# How far away from what is not wanted, at its full weight: further, and what is found is unlike it and everything else.
AWAY = 0.3
LEAST_LENGTH = 1e-3


@dataclass(frozen=True)
class EncodedTerm:
    vector: Vector
    weight: float
    is_text: bool


def is_text(term: SearchTerm, mode: SearchMode) -> bool:
    """Whether its vector is a text's. A product's is, where the mode's queries are texts: its title's."""
    return term.text is not None or (term.product_id is not None and not mode.query_is_image)


def mixes_kinds(terms: Sequence[SearchTerm], mode: SearchMode, *, has_upload: bool) -> bool:
    """Texts and pictures, which CLIP alone brings together."""
    return len({is_text(term, mode) for term in terms} | ({False} if has_upload else set())) > 1


def composed(terms: Sequence[EncodedTerm], says_nothing: Vector | None) -> Vector:
    """Of length 1, as all of these are: the mean of what is wanted, away from that of what is not. `says_nothing`: a
    text's vector, where texts go with pictures. Raises InvalidInput where nothing is left."""
    weights = np.array([term.weight for term in terms], np.float32)
    is_wanted = weights > 0
    shares = np.where(is_wanted, weights / weights[is_wanted].sum(), AWAY * weights / max(1, int((~is_wanted).sum())))
    mixed = shares @ np.stack([_direction(term, says_nothing) for term in terms])
    length = float(np.linalg.norm(mixed))
    if length < LEAST_LENGTH:
        raise InvalidInput.in_field("terms", "cancel each other out; change their weights")
    return (mixed / length).astype(np.float32)


def _direction(term: EncodedTerm, says_nothing: Vector | None) -> Vector:
    if says_nothing is None or not term.is_text:
        return term.vector
    return BESIDE_PICTURES * (term.vector - says_nothing)
