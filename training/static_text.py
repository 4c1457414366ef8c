"""The text-to-text model: one vector per word piece, averaged (sentence-transformers' `StaticEmbedding`).

Distilled from the teacher; a contrastive term over parallel texts brings Chinese and English together.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.alignment import multi_positive_loss
from training.text_tower import TokenTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaticSettings:
    """Width of the vectors and the weights of the loss's terms."""

    dim: int = 192
    steps: int = 1500
    batch: int = 1024
    learning_rate: float = 5e-3
    temperature: float = 0.05
    parallel_weight: float = 0.5
    seed: int = 0


def train_static(
    tokens: TokenTable, vocab_size: int, teacher: Tensor, parallel: Tensor, settings: StaticSettings
) -> Tensor:
    """Word vectors [vocab, dim]. `teacher` [texts, 384] are unit vectors; `parallel` [n, 2] rows that mean the same."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    centred = functional.normalize(teacher - teacher.mean(0), dim=-1)  # e5's vectors lie in a narrow cone
    bag = nn.EmbeddingBag(vocab_size, settings.dim)
    nn.init.normal_(bag.weight, std=0.05)
    to_teacher = nn.Linear(settings.dim, teacher.shape[1], bias=False)
    optimizer = torch.optim.Adam([*bag.parameters(), *to_teacher.parameters()], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.1)
    for step in range(settings.steps):
        rows = rng.choice(len(teacher), min(settings.batch, len(teacher)), replace=False)
        student = bag(*tokens.bags(rows))
        loss = _distillation(student, to_teacher(student), centred[rows], settings.temperature)
        loss = loss + settings.parallel_weight * _parallel(bag, tokens, parallel, rng, settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == settings.steps - 1:
            logger.info("static text model: step %d of %d, loss %.3f", step, settings.steps, loss.item())
    return bag.weight.detach()


def _distillation(student: Tensor, mapped: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Near the teacher's vectors when mapped to its space, and with the teacher's similarities within the batch."""
    unit = functional.normalize(student, dim=-1)
    similarity, wanted = unit @ unit.T, teacher @ teacher.T
    near = (1 - functional.cosine_similarity(mapped, teacher)).mean()
    relations = functional.kl_div(
        functional.log_softmax(similarity / temperature, dim=-1),
        functional.softmax(wanted / temperature, dim=-1),
        reduction="batchmean",
    )
    return 2 * near + relations + 5 * functional.mse_loss(similarity, wanted)


def _parallel(
    bag: nn.EmbeddingBag, tokens: TokenTable, parallel: Tensor, rng: np.random.Generator, settings: StaticSettings
) -> Tensor:
    rows = parallel[torch.from_numpy(rng.choice(len(parallel), min(settings.batch, len(parallel)), replace=False))]
    chinese, english = (functional.normalize(bag(*tokens.bags(rows[:, side].numpy())), dim=-1) for side in (0, 1))
    positive = (rows[:, :1] == rows[:, 0]) | (rows[:, 1:] == rows[:, 1])
    return multi_positive_loss(chinese @ english.T / settings.temperature, positive)
