"""What a CUDA GPU makes of the encoders: pictures and texts a second by precision and batch, and how far vectors move.

    python -m benchmarks.gpu                     # the sizes that people use, with random weights
    python -m benchmarks.gpu --device cpu --quick    # only whether it runs

Pictures from pinned memory against pageable, texts of very different lengths in batches by tokens against all at once,
and the cosine of each precision to float32 on the same device, which must be 0.999 for the one that the service takes.
What a core prepares a second stands beside it: a GPU is fed by cores.
"""

import argparse
import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from benchmarks import results
from benchmarks.encode_worker import PICTURES, Encode, rate
from benchmarks.load import titles
from benchmarks.models import MODELS, clip_folder, text_folder
from tuwen.encoders.base import Embeddings
from tuwen.encoders.device import half_precision
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import AS_GOOD, least_cosine
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.settings import PROJECT_ROOT

PRECISIONS = ("float32", "float16", "bfloat16")
LONG = 500  # characters, the most that a title may have
ONE_IN = 16  # of the mixed texts is long
ALL_AT_ONCE = sys.maxsize  # tokens: one call for a batch, padded to its longest
NO_GPU = "There is no CUDA GPU here that torch can use: run this on a machine that has one."


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--device", default="cuda", help="cuda, cuda:1, ...")
    options.add_argument("--models", choices=MODELS, default="real")
    options.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128, 256])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    chosen = options.parse_args()
    if _is_gpu(chosen.device) and not torch.cuda.is_available():
        sys.exit(NO_GPU)
    if chosen.quick:
        chosen.models, chosen.batches, chosen.rounds, chosen.seconds = "demo", [1, 2], 1, 0.01
    report = results.Report("gpu", quick=chosen.quick)
    name = torch.cuda.get_device_name(chosen.device) if _is_gpu(chosen.device) else chosen.device
    report.add(what="device", name=name, torch=str(torch.__version__))
    cosines = _measure(report, chosen)
    report.write(chosen.json)
    taken = half_precision(chosen.device)
    moved = [f"{what} {cosine:.4f}" for (what, of), cosine in cosines.items() if of == taken and not cosine >= AS_GOOD]
    if moved and not chosen.quick:
        sys.exit(
            f"In {taken} vectors are too far from float32's, with which the service would stay: {', '.join(moved)}"
        )


def _measure(report: results.Report, chosen: argparse.Namespace) -> Mapping[tuple[str, str], float]:
    """By what and precision, the least cosine to float32."""
    reference: Mapping[str, Embeddings] = {}
    cosines: dict[tuple[str, str], float] = {}
    texts = list(titles())
    for precision in dict.fromkeys(["float32", *chosen.precisions]):
        clip = TransformersClip(clip_folder(chosen.models), chosen.device, getattr(torch, precision))
        sentence = SentenceEncoder(text_folder(chosen.models), chosen.device, Prompts(), precision)
        pictures = [clip.prepare(picture) for picture in _pictures()]
        items: dict[str, Sequence[Any]] = {
            "images": pictures,
            "clip texts": texts,
            "titles": texts,
            "mixed titles": _mixed(texts),
        }
        vectors = _vectors(clip, sentence, items, min(PICTURES, max(chosen.batches)))
        reference = reference or vectors
        cosines |= {(what, precision): least_cosine(rows, reference[what]) for what, rows in vectors.items()}
        if precision in chosen.precisions:
            for row in _rates(clip, sentence, items, chosen):
                report.add(precision=precision, **row, cosine=round(cosines[row["what"], precision], 5))
        del clip, sentence
        _release()
    return cosines


def _vectors(
    clip: TransformersClip, sentence: SentenceEncoder, items: Mapping[str, Sequence[Any]], count: int
) -> dict[str, Embeddings]:
    return {
        "images": clip.encode_prepared(items["images"][:count]),
        "clip texts": clip.encode_texts(items["clip texts"][:count]),
        "titles": sentence.encode_documents(items["titles"][:count]),
        "mixed titles": sentence.encode_documents(items["mixed titles"][:count]),
    }


def _rates(
    clip: TransformersClip, sentence: SentenceEncoder, items: Mapping[str, Sequence[Any]], chosen: argparse.Namespace
) -> Iterator[results.Row]:
    def pictures_one_by_one(pictures: Sequence[Image.Image]) -> list[Any]:
        return [clip.prepare(picture) for picture in pictures]

    per_s = round(rate(pictures_one_by_one, _pictures(), 1, chosen.seconds), 1)
    yield {"what": "images", "way": "prepared by a core", "batch": 1, "per_s": per_s, "gpu_mib": 0}
    by_tokens = sentence.most_tokens
    for batch in chosen.batches:
        for pins in (True, False) if clip.pin_memory else (False,):
            clip.pin_memory = pins
            way = "from pinned memory" if pins else "from pageable memory"
            yield _measured("images", way, clip.encode_prepared, items, batch, chosen)
        clip.pin_memory = _is_gpu(chosen.device)
        yield _measured("clip texts", "by tokens", clip.encode_texts, items, batch, chosen)
        yield _measured("titles", "by tokens", sentence.encode_documents, items, batch, chosen)
        yield _measured("mixed titles", "by tokens", sentence.encode_documents, items, batch, chosen)
        sentence.most_tokens = ALL_AT_ONCE
        yield _measured("mixed titles", "all at once", sentence.encode_documents, items, batch, chosen)
        sentence.most_tokens = by_tokens


def _measured(
    what: str, way: str, encode: Encode, items: Mapping[str, Sequence[Any]], batch: int, chosen: argparse.Namespace
) -> results.Row:
    """The median of the rounds. A batch that the GPU has no memory for is a result, too."""
    row: results.Row = {"what": what, "way": way, "batch": batch}
    if _is_gpu(chosen.device):
        torch.cuda.reset_peak_memory_stats(chosen.device)
    try:
        per_s = results.median([rate(encode, items[what], batch, chosen.seconds) for _ in range(chosen.rounds)])
    except torch.OutOfMemoryError:
        _release()
        return row | {"per_s": None, "gpu_mib": None}
    peak = torch.cuda.max_memory_allocated(chosen.device) / results.MIB if _is_gpu(chosen.device) else 0
    return row | {"per_s": round(per_s, 1), "gpu_mib": round(peak)}


def _is_gpu(device: str) -> bool:
    return device.startswith("cuda")


def _pictures() -> list[Image.Image]:
    paths = sorted((PROJECT_ROOT / "demo" / "images").rglob("*.webp"))[:PICTURES]
    return [Image.open(path).convert("RGB") for path in paths]


def _mixed(texts: Sequence[str]) -> list[str]:
    return [(text * LONG)[:LONG] if number % ONE_IN == 0 else text for number, text in enumerate(texts)]


def _release() -> None:
    """What the last batch or model held, before the next one is measured."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
