"""Measures the shipped models on the demo catalogue, without a service: numpy and cosines.

    python -m training.evaluate --models models/

The catalogue's pictures and titles were trained on; the further views in `evaluation/views` were not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

from training.collect import Product, read_products
from training.corpus import CATALOGUE_PICTURES, REPOSITORY, TITLES
from training.report import recall_at, unit
from training.vision import compile_encoder, extract_features
from tuwen.encoders.picture import prepare_picture

FURTHER_VIEWS = REPOSITORY / "evaluation" / "views"

Vectors = NDArray[np.float32]


class DualEncoder:
    """The exported folder, with the service's preparation of pictures."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._encode = compile_encoder(self._model.vision_model)
        self._processor = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]

    def embed_pictures(self, paths: Sequence[Path]) -> Vectors:
        """Unit vectors [n, 512]; the picture tower runs in OpenVINO where that is installed."""
        features = extract_features(self._encode, (_open(path) for path in paths)).astype(np.float32)
        with torch.inference_mode():
            return unit(self._model.visual_projection(torch.from_numpy(features)).numpy())

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [n, 512]."""
        tokens = self._processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return unit(self._model.get_text_features(**tokens).pooler_output.numpy())


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return prepare_picture(image, pad_to_square=True)


def catalogue_report(models: Path) -> str:
    """The four search modes, as lines of text."""
    products = [p for p in read_products(TITLES) if (CATALOGUE_PICTURES / f"{p.sku}.webp").exists()]
    clip = DualEncoder(models / "demo-clip-2")
    pictures = clip.embed_pictures([CATALOGUE_PICTURES / f"{p.sku}.webp" for p in products])
    lines = [f"A1 own picture: {recall_at(pictures @ pictures.T, np.eye(len(products), dtype=bool))}"]
    lines += _further_views(clip, products, pictures)
    itself = np.eye(len(products), dtype=bool)
    for language, titles in (("zh", [p.title_zh for p in products]), ("en", [p.title_en for p in products])):
        texts = clip.embed_texts(titles)
        same_title = np.array([[title == other for other in titles] for title in titles])
        lines.append(f"A4 {language} title -> own picture: {recall_at(texts @ pictures.T, itself)}")
        lines.append(f"A3 picture -> own {language} title: {recall_at(pictures @ texts.T, same_title)}")
    return "\n".join(lines + _text_to_text(models / "demo-bge", products))


def _further_views(clip: DualEncoder, products: Sequence[Product], pictures: Vectors) -> list[str]:
    rows = {product.sku: row for row, product in enumerate(products)}
    found = ((path, path.stem.rpartition("_")[0]) for path in sorted(FURTHER_VIEWS.rglob("*.webp")))
    views = [(path, rows[sku]) for path, sku in found if sku in rows]
    if not views:
        return ["A1 further views: none found"]
    similarity = clip.embed_pictures([path for path, _ in views]) @ pictures.T
    relevant = np.zeros(similarity.shape, bool)
    relevant[np.arange(len(views)), [row for _, row in views]] = True
    return [f"A1 further view -> its product: {recall_at(similarity, relevant)}"]


def _text_to_text(folder: Path, products: Sequence[Product]) -> list[str]:
    model = SentenceTransformer(str(folder), device="cpu")
    chinese, english = (
        unit(np.asarray(model.encode(titles), np.float32))
        for titles in ([p.title_zh for p in products], [p.title_en for p in products])
    )
    same = np.array([[one.title_zh == other.title_zh for other in products] for one in products])
    return [
        f"A2 title -> same title: {_strictly_first(chinese @ chinese.T, same):.1f} first",
        f"A2 zh title -> en title: {recall_at(chinese @ english.T, same)}",
        f"A2 en title -> zh title: {recall_at(english @ chinese.T, same)}",
    ]


def _strictly_first(similarity: Vectors, relevant: NDArray[np.bool_]) -> float:
    """Percent of queries whose own score no other text reaches."""
    others = np.where(relevant, -1, similarity).max(1)
    return float((similarity.diagonal() > others + 1e-6).mean()) * 100


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models")
    print(catalogue_report(parser.parse_args().models))


if __name__ == "__main__":
    main()
