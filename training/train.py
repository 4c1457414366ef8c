"""The one command: fetch the data, make features, train the demo CLIP, export it.

    python -m training.train --data DIR --out models/ [--held-out] [--text-model]

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
    text_features,
    train_heads,
)
from training.collect import read_products
from training.coloured import add_looks, coloured_products
from training.concepts import NamedConcepts
from training.corpus import CATALOGUE, REPOSITORY, TITLES, Corpus, build_corpus
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
from training.wordnet import WordNet

logger = logging.getLogger(__name__)

VOCABULARY_SIZE, TEXT_MODEL_VOCABULARY_SIZE = 30_000, 14_000
PHRASES = 20_000
KNOWN_AGAIN = 2  # so much more often names that pictures are known by are learnt
COMPOSED_TITLES = 4_750
CHINESE_NOUNS = 24_000


@dataclass(frozen=True)
class Options:
    """The command line."""

    data: Path
    out: Path
    held_out: bool
    text_model: bool


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
    """The dual encoder, but for the frozen picture network."""

    heads: Heads
    tower: TextTower
    tokenizer: Tokenizer

    def embed_pictures(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors of picture features."""
        with torch.inference_mode():
            return self.heads.embed_pictures(torch.from_numpy(features)).numpy()

    def embed_texts(self, wanted: list[str]) -> NDArray[np.float32]:
        """Unit vectors of the dual encoder's text tower."""
        return embed_texts(self.tower, TokenTable(self.tokenizer, wanted), range(len(wanted)))


@dataclass(frozen=True)
class TextModel:
    """The text-to-text model: word vectors [words, 192], averaged."""

    word_vectors: Tensor
    tokenizer: Tokenizer

    def embed(self, wanted: list[str]) -> NDArray[np.float32]:
        """Unit vectors [n, 192]."""
        ids, offsets = TokenTable(self.tokenizer, wanted).bags(range(len(wanted)))
        return unit(functional.embedding_bag(ids, self.word_vectors, offsets).numpy())


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="packages and features are cached here")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models, e.g. models/")
    parser.add_argument("--held-out", action="store_true", help="measure on what training never sees; export nothing")
    parser.add_argument("--text-model", action="store_true", help="make demo-bge anew, too, which no index outlives")
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
        products = read_products(TITLES)
        add_looks(corpus.pictures, products, coloured_products(products, CATALOGUE, encoder, options.data))
    wordnet = WordNet(packages[fetch.WORDNET.name] / "usr/share/wordnet", names.read_senses())
    nouns = texts.english_nouns(packages[fetch.WORDNET.name] / "usr/share/wordnet/data.noun")
    nouns += texts.chinese_nouns(Path(jieba.__file__).with_name("dict.txt"), CHINESE_NOUNS)
    models, table = train_models(corpus, classifier, nouns, wordnet, Teacher(options.data / "teacher.npz"))
    text_model = train_text_model(table) if options.held_out or options.text_model else None
    if options.held_out and text_model:
        print(held_out_report(corpus, models.embed_pictures, models.embed_texts, text_model.embed))
        return
    with stage("export"):
        dual_encoder = assemble_dual_encoder(vision, models.heads.picture, models.tower, models.heads.scale.detach())
        save_dual_encoder(dual_encoder, models.tokenizer, options.out / "demo-clip-2")
        if text_model:
            save_static_text_model(text_model.word_vectors, text_model.tokenizer, options.out / "demo-bge")


def render_training_views(folder: Path) -> Path:
    """The products of the furniture package from other sides than the catalogue and the query views show."""
    command = [sys.executable, "-m", "demo.build_catalogue", "--work-dir", str(folder.resolve())]
    command += ["--render-only", "train"]
    if subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
        raise fetch.FetchError("the products could not be rendered; the reason stands above")
    return folder / "renders"


def train_models(
    corpus: Corpus,
    classifier: nn.Linear,
    nouns: list[str],
    wordnet: WordNet,
    teacher: Teacher,
) -> tuple[Models, TextTable]:
    """Heads on the teacher, then the text tower distilled from it and tuned; and the texts."""
    classes = names.read_imagenet_classes()
    concepts = NamedConcepts(wordnet, classes, names.read_things(), names.read_looks())
    collection = build_collection(corpus, classifier, classes)
    with stage("teacher"):
        table = build_text_table(corpus, collection, classes, [*nouns, *concepts.names], teacher)
    rows = table.numbers()
    class_rows = [[rows[name] for name in (*c.names_zh, *c.names_en)] for c in classes]
    lower = {text.lower(): row for text, row in rows.items()}
    known = ClassKnowledge(
        classifier.weight.detach(),
        classifier.bias.detach(),
        class_rows,
        torch.tensor([lower[name] for name in concepts.names]),
        torch.from_numpy(concepts.table),
    )
    with stage("heads"):
        embeddings = _centred(table.teacher)
        features = text_features(embeddings, concepts.shares(table.texts, known.guess(embeddings)))
        heads = train_heads(collection, features, known, table.parallel, AlignmentSettings())
        with torch.no_grad():
            targets = heads.embed_texts(features)
    with stage("text tower"):
        tower, tokenizer = train_tower(table.texts, targets, known.concept_rows.tolist())
    with stage("tuning on pictures"):
        tokens = TokenTable(tokenizer, table.texts)
        tune_on_pictures(tower, heads, collection, tokens, targets, known, TuningSettings())
    return Models(heads, tower, tokenizer), table


def train_text_model(table: TextTable) -> TextModel:
    """It learns the teacher's similarities, and that a Chinese and an English title mean the same."""
    with stage("text-to-text model"):
        tokenizer = new_tokenizer(table.texts, TEXT_MODEL_VOCABULARY_SIZE)
        tokens, words = TokenTable(tokenizer, table.texts), tokenizer.get_vocab_size()
        return TextModel(train_static(tokens, words, table.teacher, table.parallel, StaticSettings()), tokenizer)


def train_tower(trained: list[str], targets: Tensor, known: list[int]) -> tuple[TextTower, Tokenizer]:
    """Distilled from unit vectors [texts, 512]; the `known` rows are names that pictures are known by."""
    phrases, rows = texts.in_phrases(trained, known, PHRASES)
    trained, targets = [*trained, *phrases], torch.cat([targets, targets[rows]])
    tokenizer = new_tokenizer(trained, VOCABULARY_SIZE)
    again = KNOWN_AGAIN * known
    trained, targets = [*trained, *(trained[row] for row in again)], torch.cat([targets, targets[again]])
    tokens, vocab_size = TokenTable(tokenizer, trained), tokenizer.get_vocab_size()
    word_vectors = distil_bag(tokens, vocab_size, targets, DistillationSettings())
    return distil_tower(tokens, vocab_size, targets, word_vectors, DistillationSettings()), tokenizer


def new_tokenizer(trained: list[str], vocabulary_size: int) -> Tokenizer:
    """Of these texts' words, as jieba cuts them."""
    return build_tokenizer(trained, vocabulary_size, lambda run: jieba.cut(run, HMM=False))


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
    things = [
        (zh, en) for english, chinese in names.read_things() for zh in chinese.split("/") for en in english.split("/")
    ]
    pairs = [
        *corpus.parallel,
        *goods,
        *things,
        *((zh, en) for en, chinese in qualities.entries.items() for zh in chinese),
    ]
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
