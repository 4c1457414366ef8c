"""Speaks OpenAI's embeddings protocol, as vLLM, TEI and Infinity do: python -m tests.embedding_server PORT

Its vectors count characters, so that texts with common ones are near each other; a picture has those of its colour's
name. `POST /v1/control` says how it behaves from then on, `GET /v1/seen` what it was asked.
"""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

DIM = 64
MOST_INPUTS = 32  # TEI's own limit
LONGEST_PAIR = 60  # of a query and a title, in characters here
POISON = "毒"
NO_NUMBER = '{"data": [{"index": 0, "embedding": [NaN, 1.0]}]}'
OK = 200
COLOURS = {"红": (200, 30, 30), "蓝": (30, 30, 200), "绿": (30, 160, 30)}
seen: list[dict[str, Any]] = []
behaviour: dict[str, Any] = {}


def vector_of(text: str, dim: int) -> list[float]:
    vector = np.zeros(dim)
    for character in text:
        vector[int.from_bytes(hashlib.sha256(character.encode()).digest()[:4]) % dim] += 1
    vector[0] += 0.01
    return [float(number) for number in 3 * vector]  # of no particular length: nobody may rely on it


def colour_of(url: str) -> str:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data))).resize((1, 1))
    pixel = np.array(picture.getpixel((0, 0)), float)
    return min(COLOURS, key=lambda name: float(np.abs(pixel - COLOURS[name]).sum()))


def inputs_of(body: dict[str, Any]) -> Sequence[str]:
    if "messages" in body:
        [content] = body["messages"][-1]["content"]
        return [content["text"] if content["type"] == "text" else colour_of(content["image_url"]["url"])]
    return [colour_of(each) if body.get("modality") == "image" else each for each in body["input"]]


async def embeddings(request: Request) -> Response:
    body = await request.json()
    seen.append({"key": request.headers.get("Authorization"), **body})
    for status in behaviour.get("statuses", []):
        behaviour["statuses"] = behaviour["statuses"][1:]
        if status != OK:
            return JSONResponse({"error": {"message": "busy", "sent": seen[-1]}}, status, {"Retry-After": "1"})
        break
    if behaviour.get("redirect"):
        return RedirectResponse(behaviour["redirect"], 307)
    await asyncio.sleep(behaviour.get("delay", 0))
    raw = NO_NUMBER if "nan" in behaviour else behaviour.get("raw")
    if raw is not None:
        return Response(raw, media_type="application/json")
    inputs = inputs_of(body)
    if len(inputs) > MOST_INPUTS or any(POISON in text for text in inputs):
        return JSONResponse({"error": {"message": "too many or too long"}}, 413)
    dim = body.get("dimensions", behaviour.get("dim", DIM))
    data = [
        {"object": "embedding", "index": number, "embedding": vector_of(text, dim)}
        for number, text in enumerate(inputs)
    ]
    if "drop" in behaviour:
        data.pop()
    answer = {"object": "list", "model": body["model"], "data": data[::-1]}  # in no order
    if "compressed" in behaviour:
        return Response(gzip.compress(json.dumps(answer).encode()), headers={"Content-Encoding": "gzip"})
    return JSONResponse(answer)


async def rerank(request: Request) -> Response:
    """By the characters that a title has in common with the query. Jina's shape below `/v1`, TEI's without it."""
    body = await request.json()
    seen.append({"key": request.headers.get("Authorization"), **body})
    for status in behaviour.pop("statuses", []):
        return JSONResponse({"error": {"message": "busy"}}, status)
    if "raw" in behaviour:
        return Response(behaviour["raw"], media_type="application/json")
    is_tei = not request.url.path.startswith("/v1")
    titles = body["texts" if is_tei else "documents"]
    longest = max(len(body["query"]) + len(title) for title in titles)
    if len(titles) > MOST_INPUTS or (is_tei and longest > LONGEST_PAIR and not body.get("truncate")):
        return JSONResponse({"error": "too many, or too long", "error_type": "Validation"}, 422)
    scores = [len(set(body["query"]) & set(title)) / len(set(title)) for title in titles]
    if "drop" in behaviour:
        scores.pop()
    if "nan" in behaviour:
        scores[0] = float("nan")
    name = "score" if is_tei else "relevance_score"
    ranked = sorted(enumerate(scores), key=lambda each: -each[1])
    rows = [{"index": number, name: score} for number, score in ranked]
    answer = rows if is_tei else {"model": body["model"], "results": rows}
    return Response(json.dumps(answer), media_type="application/json")  # not a number, too


async def control(request: Request) -> Response:
    behaviour.clear()
    behaviour.update(await request.json())
    return Response(status_code=204)


async def what_was_seen(_: Request) -> Response:
    found = list(seen)
    seen.clear()
    return JSONResponse(found)


ROUTES = [
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/rerank", rerank, methods=["POST"]),
    Route("/rerank", rerank, methods=["POST"]),
    Route("/v1/control", control, methods=["POST"]),
    Route("/v1/seen", what_was_seen),
]

if __name__ == "__main__":
    uvicorn.run(Starlette(routes=ROUTES), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
