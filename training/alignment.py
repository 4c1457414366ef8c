"""Ties picture features to text embeddings in one 512-dimensional space (LiT: Zhai et al. 2022, frozen picture tower).

Linear heads on both sides, a contrastive loss with several positives and an instance term over several views of one
product. The heads start from the ImageNet classifier's knowledge; pseudo pictures and a divergence term keep it there.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

logger = logging.getLogger(__name__)

EMBEDDING_DIM = 512
INITIAL_SCALE = math.log(1 / 0.07)  # as in CLIP (Radford et al. 2021)
MAX_SCALE = math.log(100.0)
NAME_TEMPERATURE = 0.07
EMBEDDING_SCALE, NAMED_SCALE = 0.6, 3.0  # parts of the text features; a larger part learns faster


@dataclass(frozen=True)
class Caption:
    """A text of a picture; the weight says how often training draws it."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class CaptionedPicture:
    """Features of all views of one thing, float16 [views, 1280], and its captions.

    Pictures of one concept are positives of each other; `instance` pictures take part in the instance term too.
    Those of one `looks` are one thing in several colours.
    """

    concept: str
    features: NDArray[np.float16]
    captions: tuple[Caption, ...]
    instance: bool = False
    looks: str = ""


@dataclass(frozen=True)
class Batch:
    """`features` [n, 1280], `text_rows` [n] into the text table, `positive` [n, n] picture x text."""

    features: Tensor
    text_rows: NDArray[np.int64]
    positive: Tensor


class Collection:
    """Captioned pictures as flat arrays, for fast sampling."""

    def __init__(self, pictures: Sequence[CaptionedPicture]) -> None:
        self.pictures = pictures
        self.texts = list(dict.fromkeys(caption.text for picture in pictures for caption in picture.captions))
        rows = {text: row for row, text in enumerate(self.texts)}
        self._captions = [np.array([rows[c.text] for c in p.captions]) for p in pictures]
        weights = [np.array([c.weight for c in p.captions]) for p in pictures]
        self._probabilities = [weight / weight.sum() for weight in weights]
        concepts = {concept: i for i, concept in enumerate(dict.fromkeys(p.concept for p in pictures))}
        self._concept = np.array([concepts[p.concept] for p in pictures])
        self._has_text = np.zeros((len(concepts), len(self.texts)), bool)
        for concept, captions in zip(self._concept, self._captions, strict=True):
            self._has_text[concept, captions] = True
        self.instances = np.array([i for i, p in enumerate(pictures) if p.instance and len(p.features) > 1], np.int64)
        looks: dict[str, list[int]] = {}
        for i, picture in enumerate(pictures):
            if picture.looks:
                looks.setdefault(picture.looks, []).append(i)
        self.looks = [np.array(rows) for rows in looks.values()]

    def sample(self, size: int, rng: np.random.Generator) -> Batch:
        """A random view and a random caption of `size` random pictures."""
        return self._batch(rng.choice(len(self.pictures), min(size, len(self.pictures)), replace=False), rng)

    def sample_looks(self, things: int, rng: np.random.Generator) -> Batch:
        """A random caption of every look of some things, so that only the colour's word tells them apart."""
        chosen = rng.choice(len(self.looks), min(things, len(self.looks)), replace=False)
        return self._batch(np.concatenate([self.looks[i] for i in chosen]), rng)

    def _batch(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        text_rows = np.array([rng.choice(self._captions[i], p=self._probabilities[i]) for i in chosen])
        positive = self._has_text[self._concept[chosen]][:, text_rows]
        return Batch(self._views(chosen, rng), text_rows, torch.from_numpy(positive))

    def sample_instances(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Two different views, [n, 1280] each, of `n <= size` products."""
        chosen = rng.choice(self.instances, min(size, len(self.instances)), replace=False)
        pairs = [rng.choice(len(self.pictures[i].features), 2, replace=False) for i in chosen]
        first, second = (
            np.stack([self.pictures[i].features[pair[side]] for i, pair in zip(chosen, pairs, strict=True)])
            for side in (0, 1)
        )
        return torch.from_numpy(first).float(), torch.from_numpy(second).float()

    def _views(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        views = [self.pictures[i].features for i in chosen]
        return torch.from_numpy(np.stack([view[rng.integers(len(view))] for view in views])).float()


@dataclass(frozen=True)
class ClassKnowledge:
    """The ImageNet classifier ([1000, 1280], [1000]) and, for each class, the rows of its names in a text table.

    `concept_rows` [names] are the rows of all known names, `concept_shares` [names, 1000] how far each is which class.
    """

    weight: Tensor
    bias: Tensor
    name_rows: Sequence[Sequence[int]]
    concept_rows: Tensor
    concept_shares: Tensor

    def pool_names(self, text_table: Tensor) -> Tensor:
        """[texts, dim] -> [1000, dim], the mean over each class's names."""
        return torch.stack([text_table[list(rows)].mean(0) for rows in self.name_rows])

    def guess(self, embeddings: Tensor) -> NDArray[np.float32]:
        """Which classes each text names, float32 [texts, 1000], by a softmax over its cosines to all known names."""
        directions = functional.normalize(embeddings, dim=-1)
        names = directions[self.concept_rows]
        near = [
            functional.softmax(directions[part] @ names.T / NAME_TEMPERATURE, dim=-1) @ self.concept_shares
            for part in batched(len(embeddings), 4096)
        ]
        guessed: NDArray[np.float32] = torch.cat(near).numpy()
        return guessed


def text_features(embeddings: Tensor, named: NDArray[np.float32]) -> Tensor:
    """Teacher embeddings [texts, 384] and what they name [texts, 1000] -> what the text head maps, side by side.

    Through the second a text reaches the classifier's weight vectors, which no linear map of embeddings does.
    """
    return torch.cat([EMBEDDING_SCALE * embeddings, NAMED_SCALE * torch.from_numpy(named)], dim=1)


def pseudo_pictures(
    classifier: nn.Linear, features: NDArray[np.float32], names: Sequence[tuple[Caption, ...]]
) -> list[CaptionedPicture]:
    """Where the classifier expects a class's pictures: mean + covariance x weight, as a linear discriminant has it."""
    mean = features.mean(0)
    covariance = np.cov(features, rowvar=False).astype(np.float32)
    weight = classifier.weight.detach().numpy()
    offsets = (weight - weight.mean(0)) @ covariance
    offsets *= np.linalg.norm(features - mean, axis=1).mean() / np.linalg.norm(offsets, axis=1, keepdims=True)
    vectors = np.maximum(mean + offsets, 0).astype(np.float16)  # the features are means of a relu6
    return [CaptionedPicture(f"imagenet:{i}", vectors[i : i + 1], captions) for i, captions in enumerate(names)]


class Heads(nn.Module):
    """Linear maps of picture features (1280) and text features (1384) to the joint space."""

    def __init__(self, feature_dim: int, text_dim: int, dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.picture = nn.Linear(feature_dim, dim, bias=False)  # as `VisionTextDualEncoderModel` has it
        self.text = nn.Linear(text_dim, dim)
        self.scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.instance_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    @torch.no_grad()
    def start_from_classifier(self, weight: Tensor, mean_features: Tensor) -> None:
        """Let a text that names a class [1000] lie where the classifier [1000, 1280] expects the class's pictures.

        Both sides look from the same main directions of the classifier's weights, away from the mean picture.
        """
        mean = functional.normalize(mean_features, dim=0)
        directions = weight - weight.mean(0)
        directions = directions - (directions @ mean)[:, None] * mean
        main = torch.linalg.svd(directions, full_matrices=False).Vh[: len(self.picture.weight)]
        self.picture.weight[: len(main)] = main
        self.text.weight.mul_(0.5)
        self.text.weight[: len(main), -len(weight) :] = functional.normalize(directions @ main.T).T / NAMED_SCALE
        self.text.bias.zero_()

    def embed_pictures(self, features: Tensor) -> Tensor:
        """Unit vectors [n, dim]."""
        return functional.normalize(self.picture(features), dim=-1)

    def embed_texts(self, features: Tensor) -> Tensor:
        """Unit vectors [n, dim] of `text_features`."""
        return functional.normalize(self.text(features), dim=-1)


def multi_positive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Symmetric cross entropy against targets spread over the positives (SupCon, Khosla et al. 2020)."""
    rows = positive.float() / positive.sum(1, keepdim=True).clamp(min=1)
    columns = positive.T.float() / positive.T.sum(1, keepdim=True).clamp(min=1)
    return (functional.cross_entropy(logits, rows) + functional.cross_entropy(logits.T, columns)) / 2


def class_divergence(
    heads: Heads, features: Tensor, pictures: Tensor, class_texts: Tensor, known: ClassKnowledge
) -> Tensor:
    """KL divergence of picture-to-class-name similarities from the classifier's own probabilities."""
    target = functional.softmax(features @ known.weight.T + known.bias, dim=-1)
    logits = heads.scale.exp() * pictures @ class_texts.T
    return functional.kl_div(functional.log_softmax(logits, dim=-1), target, reduction="batchmean")


def concept_divergence(
    heads: Heads, features: Tensor, pictures: Tensor, concept_texts: Tensor, some: Tensor, known: ClassKnowledge
) -> Tensor:
    """The same with some of the known names, each as likely as its share of the classifier's classes makes it."""
    probabilities = functional.softmax(features @ known.weight.T + known.bias, dim=-1)
    target = probabilities @ known.concept_shares[some].T
    target = target / target.sum(1, keepdim=True).clamp(min=1e-6)
    logits = heads.scale.exp() * pictures @ concept_texts.T
    return functional.kl_div(functional.log_softmax(logits, dim=-1), target, reduction="batchmean")


def instance_loss(heads: Heads, first: Tensor, second: Tensor) -> Tensor:
    """Contrastive loss between two views of each product."""
    logits = heads.instance_scale.exp() * heads.embed_pictures(first) @ heads.embed_pictures(second).T
    return multi_positive_loss(logits, torch.eye(len(first), dtype=torch.bool))


@dataclass(frozen=True)
class AlignmentSettings:
    """Steps, batch sizes and the weights of the loss's terms."""

    steps: int = 400
    batch: int = 512
    class_batch: int = 160
    instance_batch: int = 160
    learning_rate: float = 5e-4  # small: the classifier's knowledge must survive
    weight_decay: float = 0.05
    class_weight: float = 0.3
    parallel_weight: float = 0.3
    instance_weight: float = 0.3
    concepts: int = 768
    concept_weight: float = 0.3
    colour_things: int = 48
    colour_weight: float = 0.5
    seed: int = 0


def train_heads(
    collection: Collection,
    text_table: Tensor,
    known: ClassKnowledge,
    parallel: Tensor,
    settings: AlignmentSettings,
) -> Heads:
    """Train both heads. `text_table` [texts, 1384] starts with the collection's texts; `parallel` [n, 2] are rows."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    heads = Heads(collection.pictures[0].features.shape[1], text_table.shape[1])
    mean_features = np.stack([picture.features[0] for picture in collection.pictures]).astype(np.float32).mean(0)
    heads.start_from_classifier(known.weight, torch.from_numpy(mean_features))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.1)
    class_names = known.pool_names(text_table)
    for step in range(settings.steps):
        batch = collection.sample(settings.batch, rng)
        pictures = heads.embed_pictures(batch.features)
        texts = heads.embed_texts(text_table[batch.text_rows])
        loss = multi_positive_loss(heads.scale.exp() * pictures @ texts.T, batch.positive)
        some = slice(0, settings.class_batch)
        loss = loss + settings.class_weight * class_divergence(
            heads, batch.features[some], pictures[some], heads.embed_texts(class_names), known
        )
        names = torch.from_numpy(
            rng.choice(len(known.concept_rows), min(settings.concepts, len(known.concept_rows)), replace=False)
        )
        loss = loss + settings.concept_weight * concept_divergence(
            heads,
            batch.features[some],
            pictures[some],
            heads.embed_texts(text_table[known.concept_rows[names]]),
            names,
            known,
        )
        loss = loss + settings.parallel_weight * _parallel_loss(heads, text_table, parallel, rng)
        if len(collection.instances):
            loss = loss + settings.instance_weight * instance_loss(
                heads, *collection.sample_instances(settings.instance_batch, rng)
            )
        if collection.looks:
            looks = collection.sample_looks(settings.colour_things, rng)
            logits = heads.embed_pictures(looks.features) @ heads.embed_texts(text_table[looks.text_rows]).T
            loss = loss + settings.colour_weight * multi_positive_loss(heads.scale.exp() * logits, looks.positive)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            heads.scale.clamp_(max=MAX_SCALE)
            heads.instance_scale.clamp_(max=MAX_SCALE)
        if step % 250 == 0 or step == settings.steps - 1:
            logger.info("heads: step %d of %d, loss %.3f", step, settings.steps, loss.item())
    return heads.eval()


def _parallel_loss(heads: Heads, text_table: Tensor, parallel: Tensor, rng: np.random.Generator) -> Tensor:
    rows = parallel[torch.from_numpy(rng.choice(len(parallel), min(256, len(parallel)), replace=False))]
    chinese, english = heads.embed_texts(text_table[rows[:, 0]]), heads.embed_texts(text_table[rows[:, 1]])
    positive = (rows[:, :1] == rows[:, 0]) | (rows[:, 1:] == rows[:, 1])
    return multi_positive_loss(heads.scale.exp() * chinese @ english.T, positive)


def batched(rows: int, size: int) -> Iterator[slice]:
    """Slices that cover `rows`."""
    for begin in range(0, rows, size):
        yield slice(begin, begin + size)
