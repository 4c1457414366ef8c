"""What a sentence model wants in front of a query and of a title. Loads no model: the fingerprint asks, too."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# sentence-transformers' file, and the names that its `encode_document` looks for.
CONFIGURATION = "config_sentence_transformers.json"
QUERY_NAMES = ("query",)
DOCUMENT_NAMES = ("document", "passage", "corpus")
NO_PROMPT = "none"


class Prompts(NamedTuple):
    query: str = ""
    document: str = ""
    unasked: str = ""
    """What sentence-transformers' plain `encode` puts in front, as version 0.2.0 did: its vectors are still valid."""


def prompts_of(folder: Path | None, query: str | None, document: str | None) -> Prompts:
    """The settings' where they are given ("none": nothing in front), else what the model's folder declares, if any.

    Raises OSError, ValueError or AttributeError where the folder's file can't be read.
    """
    declared = {} if folder is None else _configuration(folder)
    prompts = declared.get("prompts") or {}
    unasked = prompts.get(declared.get("default_prompt_name")) or ""
    return Prompts(
        _declared(prompts, QUERY_NAMES, unasked) if query is None else _as_set(query),
        _declared(prompts, DOCUMENT_NAMES, unasked) if document is None else _as_set(document),
        unasked,
    )


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / CONFIGURATION
    declared: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return declared


def _declared(prompts: dict[str, str | None], names: Sequence[str], unasked: str) -> str:
    """sentence-transformers saves an empty "document" beside a "passage" that a person declared: the full one counts.

    A model that names its role and leaves it empty wants nothing there, not its default prompt.
    """
    named = [prompt for prompt in map(prompts.get, names) if prompt is not None]
    return next(filter(None, named), "" if named else unasked)


def _as_set(prompt: str) -> str:
    return "" if prompt == NO_PROMPT else prompt
