"""The small text tower: a one-layer BERT distilled from the teacher and its head, then tuned on pictures.

Its word embeddings start from a bag of words that was distilled first, which is much faster than from noise.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from training.alignment import (
    MAX_SCALE,
    ClassKnowledge,
    Collection,
    Heads,
    concept_divergence,
    instance_loss,
    multi_positive_loss,
)
from training.vocabulary import CLS, MAX_TOKENS, PAD, SEP

logger = logging.getLogger(__name__)

HIDDEN_SIZE = 256
LENGTH_GROUPS = 5
TRAINED_POSITIONS = 40  # later positions get the mean of the last trained ones


class TextTower(nn.Module):
    """BertModel and its projection, as `VisionTextDualEncoderModel` uses them."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=HIDDEN_SIZE,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=2 * HIDDEN_SIZE,
            max_position_embeddings=MAX_TOKENS,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=0,
        )
        self.bert = BertModel(config)
        self.projection = nn.Linear(HIDDEN_SIZE, dim, bias=False)
        with torch.no_grad():
            self.bert.embeddings.position_embeddings.weight.mul_(0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors [n, dim]."""
        pooled = self.bert(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return functional.normalize(self.projection(pooled), dim=-1)

    def embed(self, tokens: "TokenTable", rows: NDArray[np.int64]) -> Tensor:
        """Unit vectors [n, dim] of rows of a token table, in groups of similar length, which saves padding."""
        order = np.argsort([len(tokens.ids[row]) for row in rows], kind="stable")
        groups = np.array_split(order, min(LENGTH_GROUPS, len(order)))
        embedded = torch.cat([self(*tokens.padded(rows[group])) for group in groups])
        return embedded[torch.from_numpy(np.argsort(order))]


class TokenTable:
    """Token ids of all texts of a training run, encoded once; batches are padded to their longest text."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        self.cls, self.sep, self.pad = (_token_id(tokenizer, token) for token in (CLS, SEP, PAD))
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        self.ids = [np.array(encoding.ids[: TRAINED_POSITIONS - 2], np.int64) for encoding in encodings]

    def bags(self, rows: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Flat ids and offsets, for an embedding bag."""
        ids = [self.ids[row] for row in rows]
        offsets = np.cumsum([0, *(len(row) for row in ids[:-1])])
        return torch.from_numpy(np.concatenate(ids)), torch.from_numpy(offsets)

    def padded(self, rows: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids with [CLS] and [SEP], and the attention mask, both [n, longest]."""
        longest = max(len(self.ids[row]) for row in rows) + 2
        ids = np.full((len(rows), longest), self.pad, np.int64)
        for line, row in zip(ids, rows, strict=True):
            words = self.ids[row]
            line[0], line[1 : len(words) + 1], line[len(words) + 1] = self.cls, words, self.sep
        mask = np.arange(longest) < np.array([len(self.ids[row]) + 2 for row in rows])[:, None]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no {token}")
    return number


@dataclass(frozen=True)
class DistillationSettings:
    """Epochs over all texts; the temperature is that of the contrastive term against the teacher's batch."""

    bag_epochs: int = 8
    epochs: int = 8
    batch: int = 512
    learning_rate: float = 1e-3
    word_learning_rate: float = 4e-3  # most words are in few batches
    temperature: float = 0.05
    seed: int = 0


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cosine distance to the teacher's vector, and telling it from the rest of the batch."""
    similarity = student @ teacher.T
    own = torch.arange(len(student))
    return (1 - similarity.diagonal()).mean() * 4 + functional.cross_entropy(similarity / temperature, own) * 0.2


def distil_bag(tokens: TokenTable, vocab_size: int, targets: Tensor, settings: DistillationSettings) -> Tensor:
    """Word vectors [vocab, 256] whose mean, linearly mapped, is near the targets [texts, 512]."""
    torch.manual_seed(settings.seed)
    bag = nn.EmbeddingBag(vocab_size, HIDDEN_SIZE)
    nn.init.normal_(bag.weight, std=0.05)
    projection = nn.Linear(HIDDEN_SIZE, targets.shape[1], bias=False)
    optimizer = torch.optim.Adam([*bag.parameters(), *projection.parameters()], lr=5e-3)
    steps = settings.bag_epochs * -(-len(targets) // 1024)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps, pct_start=0.1)
    for step, rows in enumerate(_shuffled(len(targets), 1024, settings.bag_epochs, settings.seed)):
        student = functional.normalize(projection(bag(*tokens.bags(rows))), dim=-1)
        loss = distillation_loss(student, targets[rows], settings.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps - 1:
            logger.info("bag of words: step %d of %d, loss %.3f", step, steps, loss.item())
    return bag.weight.detach()


def distil_tower(
    tokens: TokenTable, vocab_size: int, targets: Tensor, word_vectors: Tensor, settings: DistillationSettings
) -> TextTower:
    """A text tower whose embeddings are near the targets, unit vectors [texts, 512]."""
    torch.manual_seed(settings.seed)
    tower = TextTower(vocab_size, targets.shape[1])
    with torch.no_grad():
        words = tower.bert.embeddings.word_embeddings.weight
        words.copy_(word_vectors / word_vectors.std())
        words[0] = 0
    others = [weights for weights in tower.parameters() if weights is not words]
    groups: list[dict[str, Any]] = [{"params": [words]}, {"params": others}]
    rates = [settings.word_learning_rate, settings.learning_rate]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = settings.epochs * -(-len(targets) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.1)
    for step, rows in enumerate(_shuffled(len(targets), settings.batch, settings.epochs, settings.seed)):
        loss = distillation_loss(tower.embed(tokens, rows), targets[rows], settings.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            logger.info("text tower: step %d of %d, loss %.3f", step, steps, loss.item())
    return tower


def _shuffled(count: int, batch: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(count)
        yield from (order[begin : begin + batch] for begin in range(0, count, batch))


@dataclass(frozen=True)
class TuningSettings:
    """Joint tuning of the text tower and the picture head on captions."""

    steps: int = 220
    batch: int = 288
    distilled: int = 160
    names: int = 128
    learning_rate: float = 3e-4
    distillation_weight: float = 1.0
    name_weight: float = 0.3
    instance_weight: float = 0.3
    colour_things: int = 24
    colour_weight: float = 0.5
    seed: int = 0


def tune_on_pictures(
    tower: TextTower,
    heads: Heads,
    collection: Collection,
    tokens: TokenTable,
    targets: Tensor,
    known: ClassKnowledge,
    settings: TuningSettings,
) -> None:
    """Tune tower and picture head together, in place; `tokens` and `targets` start with the collection's texts."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed + 1)
    parameters = [*tower.parameters(), *heads.picture.parameters(), heads.scale, heads.instance_scale]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.1)
    tower.train()
    heads.train()
    for step in range(settings.steps):
        batch = collection.sample(settings.batch, rng)
        pictures = heads.embed_pictures(batch.features)
        some = rng.choice(len(known.concept_rows), min(settings.names, len(known.concept_rows)), replace=False)
        names = known.concept_rows[some].numpy()
        others = rng.choice(len(targets), min(settings.distilled, len(targets)), replace=False)
        embedded = tower.embed(tokens, np.concatenate([batch.text_rows, names, others]))
        texts, named, distilled = torch.split(embedded, [len(batch.text_rows), len(names), len(others)])
        loss = multi_positive_loss(heads.scale.exp() * pictures @ texts.T, batch.positive)
        loss = loss + settings.distillation_weight * distillation_loss(distilled, targets[others], 0.05)
        loss = loss + settings.name_weight * concept_divergence(
            heads, batch.features, pictures, named, torch.from_numpy(some), known
        )
        if len(collection.instances):
            loss = loss + settings.instance_weight * instance_loss(heads, *collection.sample_instances(192, rng))
        if collection.looks:
            looks = collection.sample_looks(settings.colour_things, rng)
            logits = heads.embed_pictures(looks.features) @ tower.embed(tokens, looks.text_rows).T
            loss = loss + settings.colour_weight * multi_positive_loss(heads.scale.exp() * logits, looks.positive)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            heads.scale.clamp_(max=MAX_SCALE)
            heads.instance_scale.clamp_(max=MAX_SCALE)
        if step % 100 == 0 or step == settings.steps - 1:
            logger.info("tuning: step %d of %d, loss %.3f", step, settings.steps, loss.item())
    tower.eval()
    heads.eval()
    _fill_untrained_positions(tower)


@torch.no_grad()
def _fill_untrained_positions(tower: TextTower) -> None:
    positions = tower.bert.embeddings.position_embeddings.weight
    positions[TRAINED_POSITIONS:] = positions[TRAINED_POSITIONS // 2 : TRAINED_POSITIONS].mean(0)


@torch.inference_mode()
def embed_texts(tower: TextTower, tokens: TokenTable, rows: Sequence[int]) -> NDArray[np.float32]:
    """Unit vectors, float32 [n, dim]."""
    all_rows = np.array(rows, np.int64)
    return torch.cat([tower.embed(tokens, part) for part in np.array_split(all_rows, len(rows) // 512 + 1)]).numpy()
