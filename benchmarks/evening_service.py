"""What one would write in an evening instead of this project: FastAPI, the same CLIP by transformers as its model card
shows it, and an embedded store, Chroma or LanceDB as their quick starts show them. Only to be measured against.

    STORE=chroma FOLDER=.work/e VECTORS=.work/e.json PRODUCTS=820 \\
        .work/evening-venv/bin/uvicorn benchmarks.evening_service:app

A4 and A1. It keeps nothing in step with anything, has no filters, no batches, no limits, and no second text model.
"""

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request
from PIL import Image
from starlette.concurrency import run_in_threadpool
from transformers import AutoModel, AutoProcessor

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "demo-clip-2"
TOP_K = 10

Nearest = Callable[[list[float]], list[tuple[int, float]]]

app = FastAPI()
model: Any = AutoModel.from_pretrained(MODEL, dtype=torch.float32).eval()  # kept in half precision
processor: Any = AutoProcessor.from_pretrained(MODEL)  # type: ignore[no-untyped-call]


def encode_text(text: str) -> list[float]:
    with torch.no_grad():
        return _vector(model.get_text_features(**processor(text=[text], return_tensors="pt", padding=True)))


def encode_image(image: Image.Image) -> list[float]:
    with torch.no_grad():
        return _vector(model.get_image_features(**processor(images=[image], return_tensors="pt")))


def _vector(features: Any) -> list[float]:
    pooled = features.pooler_output[0]
    vector: list[float] = (pooled / pooled.norm()).tolist()
    return vector


def in_chroma(folder: str, vectors: Sequence[list[float]]) -> Nearest:
    import chromadb  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    client = chromadb.PersistentClient(folder, chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("products", metadata={"hnsw:space": "cosine"})
    collection.add(ids=[str(number) for number in range(len(vectors))], embeddings=list(vectors))

    def nearest(vector: list[float]) -> list[tuple[int, float]]:
        found = collection.query(query_embeddings=[vector], n_results=TOP_K, include=["distances"])
        return [
            (int(number), 1 - distance) for number, distance in zip(found["ids"][0], found["distances"][0], strict=True)
        ]

    return nearest


def in_lancedb(folder: str, vectors: Sequence[list[float]]) -> Nearest:
    import lancedb  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    rows = [{"id": number, "vector": vector} for number, vector in enumerate(vectors)]
    table = lancedb.connect(folder).create_table("products", data=rows)

    def nearest(vector: list[float]) -> list[tuple[int, float]]:
        found = table.search(vector).distance_type("cosine").limit(TOP_K).to_list()
        return [(row["id"], 1 - row["_distance"]) for row in found]

    return nearest


STORES = {"chroma": in_chroma, "lancedb": in_lancedb}

with (ROOT / "demo" / "catalogue.jsonl").open(encoding="utf-8") as lines:
    products = [json.loads(line) for line in lines][: int(os.environ["PRODUCTS"])]
# Of the catalogue's pictures: given, since it is searching that is compared, and to encode them here takes minutes.
vectors = json.loads(Path(os.environ["VECTORS"]).read_text(encoding="utf-8"))
nearest_to = STORES[os.environ["STORE"]](os.environ["FOLDER"], vectors)


def answer(vector: list[float]) -> dict[str, Any]:
    return {"hits": [{"score": score, "product": products[number]} for number, score in nearest_to(vector)]}


def search_text(text: str) -> dict[str, Any]:
    return answer(encode_text(text))


def search_image(data: bytes) -> dict[str, Any]:
    return answer(encode_image(Image.open(io.BytesIO(data)).convert("RGB")))


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/search")
async def search(request: Request) -> dict[str, Any]:
    if request.headers["content-type"].startswith("application/json"):
        return await run_in_threadpool(search_text, (await request.json())["text"])
    async with request.form() as form:
        upload: Any = form["image"]
        return await run_in_threadpool(search_image, await upload.read())
