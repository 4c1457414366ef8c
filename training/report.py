"""Retrieval numbers: recall at k with the random baseline beside it, and the checks for near-copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.corpus import Corpus, HeldOutPicture

CUTS = (1, 5, 10)


@dataclass(frozen=True)
class Recall:
    """Recall at each cut in percent, of the model and of chance, over `queries` against `candidates`."""

    recall: tuple[float, ...]
    random: tuple[float, ...]
    queries: int
    candidates: int

    def __str__(self) -> str:
        found = " / ".join(f"{value:.1f}" for value in self.recall)
        chance = " / ".join(f"{value:.1f}" for value in self.random)
        return f"{found}  (random {chance}; {self.queries} queries, {self.candidates} candidates)"


def recall_at(similarity: NDArray[np.float32], relevant: NDArray[np.bool_], cuts: Sequence[int] = CUTS) -> Recall:
    """Both arrays are [queries, candidates]; a query counts when any relevant candidate is in the cut."""
    best = np.where(relevant, similarity, -np.inf).max(1, keepdims=True)
    rank = ((similarity > best) & ~relevant).sum(1)  # better candidates that are not relevant
    count, relevant_count = similarity.shape[1], relevant.sum(1)
    chance = [float(np.mean([_chance(count, int(r), cut) for r in relevant_count])) * 100 for cut in cuts]
    found = [float((rank < cut).mean()) * 100 for cut in cuts]
    return Recall(tuple(found), tuple(chance), len(similarity), count)


def _chance(candidates: int, relevant: int, cut: int) -> float:
    """Probability that at least one of `relevant` is among `cut` drawn without replacement."""
    miss = 1.0
    for drawn in range(min(cut, candidates)):
        miss *= max(candidates - relevant - drawn, 0) / (candidates - drawn)
    return 1 - miss


def near_copies(tested: NDArray[np.float32], trained: NDArray[np.float32], limit: float = 0.9) -> NDArray[np.bool_]:
    """Which rows of `tested` have a cosine above `limit` to some row of `trained`."""
    return np.asarray((unit(tested) @ unit(trained).T).max(1) > limit)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length one."""
    scaled: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]
EmbedTexts = Callable[[list[str]], NDArray[np.float32]]


def held_out_report(corpus: Corpus, embed_pictures: Embed, embed_texts: EmbedTexts, embed_static: EmbedTexts) -> str:
    """Recall at 1 / 5 / 10 on pictures that training never saw, both ways, without near-copies of training pictures."""
    trained = np.stack([picture.features[0] for picture in corpus.pictures]).astype(np.float32)
    lines = []
    for group, held_out in corpus.held_out.items():
        features = np.stack([picture.features for picture in held_out]).astype(np.float32)
        copies = near_copies(features, trained)
        lines.append(
            f"{group}: {int((~copies).sum())} pictures ({int(copies.sum())} near-copies of training pictures left out)"
        )
        kept = [picture for picture, copy in zip(held_out, copies, strict=True) if not copy]
        pictures = embed_pictures(features[~copies])
        for kind in kept[0].texts:
            own = [picture.texts[kind] for picture in kept]
            wanted = [text for text in dict.fromkeys(own) if text]
            relevant = np.array([[text == candidate for candidate in own] for text in wanted])
            similarity = embed_texts(wanted) @ pictures.T
            named = relevant.any(0)
            lines.append(f"  {kind} -> picture: {recall_at(similarity, relevant)}")
            lines.append(f"  picture -> {kind}: {recall_at(similarity.T[named], relevant.T[named])}")
    lines += _parallel_report(corpus.held_out["furniture"], embed_static)
    return "\n".join(lines)


def _parallel_report(products: Sequence[HeldOutPicture], embed_static: EmbedTexts) -> list[str]:
    chinese, english = (
        embed_static([p.texts[f"{language} title"] for p in products]) for language in ("Chinese", "English")
    )
    same = np.eye(len(products), dtype=bool)
    return [
        f"text-to-text, Chinese title -> English title: {recall_at(chinese @ english.T, same)}",
        f"text-to-text, English title -> Chinese title: {recall_at(english @ chinese.T, same)}",
    ]
