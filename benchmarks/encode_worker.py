"""One way to encode, in a process of its own and perhaps an environment of its own: timed when its parent says so.

    python benchmarks/encode_worker.py KIND CLIP_FOLDER TEXT_FOLDER CACHE

A line in, `{"what": "images", "batch": 16, "seconds": 2}`, a line out, `{"per_s": 31.4}`. In turns with others of its
kind it has the cores for itself. Imports nothing of ours unless KIND is ours: other environments have none of it.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 64

Encode = Callable[[Sequence[Any]], Any]


def load_transformers(clip: Path, text: Path) -> dict[str, Encode]:
    """As their model cards show it: the processor, `get_*_features`, `SentenceTransformer.encode`."""
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers import AutoModel, AutoProcessor  # noqa: PLC0415

    model = AutoModel.from_pretrained(clip, dtype=torch.float32).eval()  # the demo model is kept in half precision
    processor: Any = AutoProcessor.from_pretrained(clip)  # type: ignore[no-untyped-call]
    titles = SentenceTransformer(str(text), device="cpu")

    def images(items: Sequence[Any]) -> Any:
        with torch.no_grad():
            return model.get_image_features(**processor(images=list(items), return_tensors="pt"))

    def clip_texts(items: Sequence[Any]) -> Any:
        with torch.no_grad():
            tokens = processor(text=list(items), padding=True, truncation=True, return_tensors="pt")
            return model.get_text_features(**tokens)

    def text_titles(items: Sequence[Any]) -> Any:
        return titles.encode(list(items), normalize_embeddings=True)

    return {"images": images, "clip texts": clip_texts, "titles": text_titles}


def load_ours(clip: Path, text: Path, backend: str, cache: str) -> dict[str, Encode]:
    sys.path.insert(0, str(ROOT))
    from nlp_models import load_encoders  # noqa: PLC0415
    from tuwen.settings import Settings  # noqa: PLC0415

    named = {"clip_model": str(clip), "text_model": str(text), "encoder_cache_dir": cache}
    named |= {"encoder_precision": "int8"} if backend == "int8" else {"encoder_backend": backend}
    encoders = load_encoders(Settings(_env_file=None, **named))  # type: ignore[arg-type]
    of_titles = encoders.text.encode_documents
    return {"images": encoders.clip.encode_images, "clip texts": encoders.clip.encode_texts, "titles": of_titles}


def load_infinity(clip: Path, text: Path) -> dict[str, Encode]:
    """Its engine in this process, without its HTTP server. It batches by itself what is asked at once."""
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    loop = asyncio.new_event_loop()

    def started(folder: Path) -> Any:
        chosen = EngineArgs(model_name_or_path=str(folder), engine="torch", device="cpu", model_warmup=False)
        engine = AsyncEmbeddingEngine.from_args(chosen)
        loop.run_until_complete(engine.astart())
        return engine

    clips, texts = started(clip), started(text)
    return {
        "images": lambda items: loop.run_until_complete(clips.image_embed(images=list(items))),
        "titles": lambda items: loop.run_until_complete(texts.embed(sentences=list(items))),
    }


def load(kind: str, clip: Path, text: Path, cache: str) -> dict[str, Encode]:
    if kind == "transformers":
        return load_transformers(clip, text)
    if kind == "infinity":
        return load_infinity(clip, text)
    return load_ours(clip, text, kind, cache)


def rate(encode: Encode, items: Sequence[Any], batch: int, seconds: float) -> float:
    """Items a second, over as many whole batches as fit."""
    clock = time.process_time if os.environ.get("BY_PROCESSOR_TIME") else time.perf_counter
    encode(items[:batch])  # what the first call of a shape compiles or allocates
    done, started = 0, clock()
    while clock() - started < seconds or not done:
        encode([items[(done + number) % len(items)] for number in range(batch)])
        done += batch
    return done / (clock() - started)


def serve(answer: TextIO, kind: str, clip: Path, text: Path, cache: str) -> None:
    encoders = load(kind, clip, text, cache)
    catalogue = [json.loads(line) for line in (ROOT / "demo" / "catalogue.jsonl").open(encoding="utf-8")]
    shown = catalogue[:: len(catalogue) // PICTURES][:PICTURES]
    pictures = [Image.open(ROOT / "demo" / each["image"]).convert("RGB") for each in shown]
    items = {"images": pictures, "clip texts": [each["title"] for each in catalogue]}
    items["titles"] = items["clip texts"]
    print(json.dumps({"encodes": list(encoders)}), file=answer, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        per_s = rate(encoders[asked["what"]], items[asked["what"]], asked["batch"], asked["seconds"])
        print(json.dumps({"per_s": per_s}), file=answer, flush=True)


if __name__ == "__main__":
    spoken = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    with contextlib.suppress(KeyboardInterrupt):
        serve(spoken, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
