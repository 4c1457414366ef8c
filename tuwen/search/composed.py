"""A query of several terms, each with a weight, as one vector: this sofa, but red; like these, not like that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_models import SearchMode, SearchTerm
from tuwen.encoders.base import Vector
from tuwen.errors import InvalidInput

# CLIP's texts are all nearer to each other than to any picture, and so are its pictures: what a text adds to a picture
# is how it differs from one that says nothing.
SAYS_NOTHING = "商品"
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


def composed(terms: Sequence[EncodedTerm], says_nothing: Vector | None) -> Vector:
    """Of length 1, as all of these are: the mean of what is wanted, away from what is not. `says_nothing`: a text's
    vector, where texts go with pictures that are wanted. Raises InvalidInput where nothing is left."""
    directions = np.stack([_direction(term, says_nothing) for term in terms])
    weights = np.array([term.weight for term in terms])
    wanted, unwanted = np.maximum(weights, 0), np.minimum(weights, 0)
    towards = wanted / wanted.sum() @ directions
    if np.linalg.norm(towards) < LEAST_LENGTH:
        raise InvalidInput.in_field("terms", "cancel each other out; change their weights")
    away = AWAY * unwanted / max(1.0, -unwanted.sum()) @ directions
    mixed = towards + away
    return np.asarray(mixed / max(float(np.linalg.norm(mixed)), LEAST_LENGTH), np.float32)


def _direction(term: EncodedTerm, says_nothing: Vector | None) -> Vector:
    return term.vector if says_nothing is None or not term.is_text else term.vector - says_nothing
