"""The encoders that the settings choose: found, loaded, and told apart by a fingerprint of their files.

What a model is and how it is called stands in `tuwen/encoders/`.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tuwen.encoders.base import Encoders, KnownIndex, ModelNames, Precision
from tuwen.encoders.endpoint_name import EndpointName, endpoint_name
from tuwen.encoders.hub import fetch_from_huggingface, fetch_from_modelscope, pinned_name, resolve_model
from tuwen.encoders.loading import FoundModel, load_clip, load_sentence
from tuwen.encoders.matryoshka import SizedName, sized_name
from tuwen.encoders.prompts import NO_PROMPT, Prompts, prompts_of
from tuwen.encoders.remote import FoundEndpoint, RemoteClip, RemoteTexts, size_of
from tuwen.encoders.reranker import LocalReranker, RemoteReranker, Reranker
from tuwen.errors import ModelMismatch, ModelUnavailable
from tuwen.settings import DEMO_CLIP, FIRST_DEMO_CLIP, Settings

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
# Formats of the same weights that nothing here reads.
UNREAD_HUB_FILES = ["*.pt", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "openvino/*", "onnx/*"]
# One of these lies in the folder of every model of its kind.
CLIP_FILES, TEXT_FILES = ("config.json",), ("modules.json", "config.json")
FETCHERS = {
    "huggingface": partial(fetch_from_huggingface, ignored_files=UNREAD_HUB_FILES),
    "modelscope": partial(fetch_from_modelscope, ignored_files=UNREAD_HUB_FILES),
}


@dataclass(frozen=True)
class FoundModels:
    """The files of two models, before they are loaded."""

    names: ModelNames
    clip: FoundModel | FoundEndpoint
    text: FoundModel | FoundEndpoint
    prompts: Prompts
    fingerprint: str
    fingerprint_of_files: str
    """As version 0.2.0 had it, which knew of one way only to use them."""


def find_models(names: ModelNames, settings: Settings, *, is_recorded: bool = False) -> FoundModels:
    """Fetches what is not here. Raises ModelUnavailable, naming the setting, when one can't be had.

    `is_recorded`: an index has these very names, and so what an endpoint answers is known. Any other must answer.
    """
    clip, text = _find_clip(names, settings, is_recorded), _find_text(names, settings, is_recorded)
    prompts = _prompts(names, text.model)
    files = clip.digests, text.digests
    return FoundModels(
        replace(names, clip=clip.pinned, text=text.pinned),
        clip.model,
        text.model,
        prompts,
        _fingerprint(files, _recipe(clip.model, prompts, names.precision, text.model.dimensions)),
        _fingerprint(files, ()),
    )


class _Found(NamedTuple):
    model: FoundModel | FoundEndpoint
    pinned: str
    digests: list[bytes]


def _find_clip(names: ModelNames, settings: Settings, is_recorded: bool) -> _Found:
    name = sized_name(names.clip)
    if endpoint := endpoint_name(name.model, "CLIP_MODEL"):
        style = settings.clip_endpoint_style  # which decides what is sent beside a picture, and so its vector
        as_clip = partial(RemoteClip, settings=settings)
        return _find_endpoint(endpoint, name.dimensions, as_clip, is_recorded, "" if style == "vllm" else f", {style}")
    path = resolve_model(names.clip, settings.model_hub, "CLIP_MODEL", FETCHERS)
    if path.suffix != ".pt" or path.is_dir():
        _require_one_of(CLIP_FILES, path, f"CLIP_MODEL={names.clip}")
    return _of_files(path, pinned_name(names.clip, path), names.precision, None)


def _find_text(names: ModelNames, settings: Settings, is_recorded: bool) -> _Found:
    name = sized_name(names.text)
    if endpoint := endpoint_name(name.model, "TEXT_MODEL"):
        as_texts = partial(RemoteTexts, prompts=Prompts(), settings=settings)
        return _find_endpoint(endpoint, name.dimensions, as_texts, is_recorded)
    path = resolve_model(name.model, settings.model_hub, "TEXT_MODEL", FETCHERS)
    _require_one_of(TEXT_FILES, path, f"TEXT_MODEL={names.text}")
    pinned = name._replace(model=pinned_name(name.model, path))
    return _of_files(path, str(pinned), names.precision, name.dimensions)


def _of_files(path: Path, pinned: str, precision: Precision | None, dimensions: int | None) -> _Found:
    digests = _file_digests(path)
    return _Found(
        FoundModel(path, hashlib.sha256(b"".join(digests)).hexdigest(), precision, dimensions), pinned, digests
    )


def _find_endpoint(
    name: EndpointName,
    dimensions: int | None,
    encoder: Callable[[FoundEndpoint], RemoteClip | RemoteTexts],
    is_recorded: bool,
    used: str = "",
) -> _Found:
    """Asks it how many numbers its vectors have, unless that is known. Where it stands makes them no others."""
    size = dimensions or name.size
    if size is None or not is_recorded:
        asked = encoder(FoundEndpoint(name._replace(size=size), dimensions))
        size = asked.dim if size is None else size_of(asked)
    found = FoundEndpoint(name._replace(size=size), dimensions)
    pinned = str(found.name if dimensions is None else SizedName(str(name._replace(size=None)), dimensions))
    return _Found(found, pinned, [hashlib.sha256(f"endpoint's model: {name.model}, {size}{used}".encode()).digest()])


def choose_models(settings: Settings, active: KnownIndex | None, others: Sequence[KnownIndex]) -> FoundModels:
    """The active index's models. Raises ModelMismatch where the settings name some that no index was made with."""
    if active is None:
        wanted = names_of(settings)
        return find_models(wanted, settings, is_recorded=_is_recorded(wanted, others))
    wanted = _editioned(names_of(settings), active, others, settings)
    found = _choose(wanted, settings, active, others)
    if found.fingerprint == active.fingerprint and wanted.clip == str(FIRST_DEMO_CLIP) != settings.clip_model:
        logger.info(
            "The index goes on with the first edition of the demo models, which made it. The second finds more: "
            "python cli.py reindex --clip-model %s --text-model %s",
            *(DEMO_CLIP, settings.text_model),
        )
    return found


def _choose(wanted: ModelNames, settings: Settings, active: KnownIndex, others: Sequence[KnownIndex]) -> FoundModels:
    recorded = active.models
    is_named = recorded is not None and _names_same(wanted, recorded)
    if recorded is not None and is_named:
        _tell_of_other_prompts(wanted, recorded)
        _tell_of_other_precision(wanted, recorded)
        # A hub's newer revision does not come in by a restart, nor does another document prompt, or int8.
        wanted = replace(recorded, query_prompt=wanted.query_prompt)
    if recorded is None:
        wanted = replace(wanted, precision=None)  # version 0.2.0 had no other
    found = find_models(wanted, settings, is_recorded=_is_recorded(wanted, (active, *others)))
    if found.fingerprint == active.fingerprint:
        return found
    if recorded is not None and not is_named and any(_is_of(found, wanted, other) for other in others):
        logger.warning(
            "CLIP_MODEL and TEXT_MODEL name the models of another index; the active one's are used: set "
            "CLIP_MODEL=%s and TEXT_MODEL=%s, %s, or change the index by 'python cli.py reindex'.",
            *(recorded.clip, recorded.text, how_to_set_prompts(recorded)),
        )
        return find_models(recorded, settings, is_recorded=True)
    if recorded is not None and is_named:
        as_set = find_models(replace(wanted, document_prompt=settings.text_document_prompt), settings, is_recorded=True)
        if as_set.fingerprint == active.fingerprint:  # made before indexes named their prompts (migration 0010)
            return as_set
        raise ModelMismatch(
            f"{recorded.clip} and {recorded.text} give other vectors now than the index was built with: put their "
            "files (and CLIP_ENDPOINT_STYLE) back to what they were, or import the catalogue into a new DATA_DIR. What "
            "an upgrade of Tuwen itself changes, CHANGELOG.md says."
        )
    if recorded is None and found.fingerprint_of_files == active.fingerprint:
        raise ModelMismatch(_otherwise_used(found))
    back = f"to {recorded.clip} and {recorded.text}" if recorded else "to what they were"
    command = f"python cli.py reindex --clip-model {settings.clip_model} --text-model {settings.text_model}"
    raise ModelMismatch(
        "CLIP_MODEL and TEXT_MODEL name other models than the index was built with. "
        f"To change them, set both back {back}, start, and run: {command}"
    )


def _editioned(wanted: ModelNames, active: KnownIndex, others: Sequence[KnownIndex], settings: Settings) -> ModelNames:
    """Settings that name the demo model mean the edition that made the active index: an upgrade changes no models.
    Where it is of neither, they mean the first one as long as there are indexes of that one alone."""
    if Path(wanted.clip).resolve() != DEMO_CLIP.resolve():
        return wanted
    first = replace(wanted, clip=str(FIRST_DEMO_CLIP))
    if active.models is None:  # version 0.2.0 recorded no names
        found = find_models(replace(first, precision=None), settings)
        return first if active.fingerprint in (found.fingerprint, found.fingerprint_of_files) else wanted
    deciding = (active,) if _is_made_by(active, DEMO_CLIP) or _is_made_by(active, FIRST_DEMO_CLIP) else others
    is_second, is_first = (any(_is_made_by(index, clip) for index in deciding) for clip in (DEMO_CLIP, FIRST_DEMO_CLIP))
    return first if is_first and not is_second else wanted


def _is_made_by(index: KnownIndex, clip: Path) -> bool:
    """Wherever the installation was then."""
    recorded = Path(index.models.clip if index.models else "")
    return recorded.parts[-2:] == clip.parts[-2:] or recorded == clip.resolve()


def names_of(settings: Settings) -> ModelNames:
    prompts = settings.text_query_prompt, settings.text_document_prompt
    precision = settings.encoder_precision
    return ModelNames(settings.clip_model, settings.text_model, *prompts, None if precision == "auto" else precision)


def names_to_build(clip: str, text: str, settings: Settings) -> ModelNames:
    """The settings' prompts belong to their TEXT_MODEL; another that the index is changed for has its own."""
    wanted = names_of(settings)
    if _names_this(sized_name(wanted.text).model, sized_name(text).model):
        return replace(wanted, clip=clip, text=text)
    return ModelNames(clip, text, precision=wanted.precision)


def how_to_set_prompts(names: ModelNames) -> str:
    prompts = {"TEXT_QUERY_PROMPT": names.query_prompt, "TEXT_DOCUMENT_PROMPT": names.document_prompt}
    return " and ".join(f'{name}="{prompt}"' if prompt else f"remove {name}" for name, prompt in prompts.items())


def _is_recorded(wanted: ModelNames, indexes: Sequence[KnownIndex]) -> bool:
    return any(index.models is not None and _names_same(wanted, index.models) for index in indexes)


def _is_of(found: FoundModels, wanted: ModelNames, index: KnownIndex) -> bool:
    """By name, too: the settings of its prompts may be gone."""
    return found.fingerprint == index.fingerprint or (index.models is not None and _names_same(wanted, index.models))


def _tell_of_other_prompts(wanted: ModelNames, recorded: ModelNames) -> None:
    """They may be left over from the model before."""
    if wanted.query_prompt != recorded.query_prompt:
        logger.warning(
            "Queries get other prompts than until now: TEXT_QUERY_PROMPT is %s, and was %s for this index.",
            *(_said(wanted.query_prompt), _said(recorded.query_prompt)),
        )
    if wanted.document_prompt not in (None, recorded.document_prompt):
        logger.warning(
            "TEXT_DOCUMENT_PROMPT=%s is not what the index was made with, which goes on with %s. Remove it, or have "
            "an index made with it by 'python cli.py reindex' with the same models.",
            *(_said(wanted.document_prompt), _said(recorded.document_prompt)),
        )


def _tell_of_other_precision(wanted: ModelNames, recorded: ModelNames) -> None:
    if wanted.precision != recorded.precision:
        logger.warning(
            "ENCODER_PRECISION asks for %s, and the index was made in %s, which goes on: vectors of both must not mix. "
            "Have an index made by 'python cli.py reindex --clip-model %s --text-model %s', or change it back.",
            *(_precision(wanted), _precision(recorded), wanted.clip, wanted.text),
        )


def _precision(names: ModelNames) -> str:
    return names.precision or "float32 or half precision"


def _said(prompt: str | None) -> str:
    return "not set (the model's own)" if prompt is None else f'"{prompt}"'


def _otherwise_used(found: FoundModels) -> str:
    """Of an index of 0.2.0 whose models are the same. CHANGELOG.md says the same."""
    if _is_siglip(found.clip):
        return (
            "The index is of version 0.2.0, which gave texts wrong vectors with a SigLIP model like "
            f"{found.names.clip}: import the catalogue into a new DATA_DIR."
        )
    before = f'"{found.prompts.unasked}"' if found.prompts.unasked else NO_PROMPT
    now = f'"{found.prompts.document}"' if found.prompts.document else "nothing"
    return (
        f"The index is of version 0.2.0, which did not put {now} in front of titles, as {found.names.text} or "
        f"TEXT_DOCUMENT_PROMPT has it now: set TEXT_DOCUMENT_PROMPT={before} to go on with it, or import the "
        "catalogue into a new DATA_DIR."
    )


def load_encoders(settings: Settings, found: FoundModels | None = None) -> Encoders:
    """Load both models; without `found`, those of the settings. Raises ConfigurationError when one can't be used."""
    found = found or find_models(names_of(settings), settings)
    clip, text = load_clip(found.clip, settings), load_sentence(found.text, found.prompts, settings)
    return Encoders(clip, text, found.names, found.fingerprint)


def load_reranker(settings: Settings) -> Reranker | None:
    """None where RERANKER_MODEL names none. Raises ModelUnavailable."""
    if not settings.reranker_model:
        return None
    if endpoint := endpoint_name(settings.reranker_model, "RERANKER_MODEL"):
        return RemoteReranker(endpoint, settings)
    return LocalReranker(
        resolve_model(settings.reranker_model, settings.model_hub, "RERANKER_MODEL", FETCHERS), settings
    )


def _names_same(wanted: ModelNames, recorded: ModelNames) -> bool:
    pairs = ((wanted.clip, recorded.clip), (wanted.text, recorded.text))
    return all(_names_this(name, recorded_name) for name, recorded_name in pairs)


def _names_this(name: str, recorded: str) -> bool:
    (wanted, dimensions), (model, recorded_dimensions) = sized_name(name), sized_name(recorded)
    if endpoint := endpoint_name(wanted, "CLIP_MODEL or TEXT_MODEL"):
        wanted = str(endpoint)  # without what it may end in
    is_same = model in (wanted, f"{Path(wanted).resolve()}") or model.startswith(f"{wanted}@")
    return is_same and dimensions == recorded_dimensions


def _require_one_of(files: Sequence[str], folder: Path, named: str) -> None:
    """Before all below the folder is read for its fingerprint, which may be a whole disk."""
    if not any((folder / file).is_file() for file in files):
        raise ModelUnavailable(f"{named}: there is no model, for {folder} has no {' and no '.join(files)} in it.")


def _prompts(names: ModelNames, model: FoundModel | FoundEndpoint) -> Prompts:
    folder = model.path if isinstance(model, FoundModel) else None  # an endpoint declares nothing
    try:
        return prompts_of(folder, names.query_prompt, names.document_prompt)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelUnavailable(f"TEXT_MODEL: the prompts of the model in {folder} can't be read: {error}") from error


def _recipe(
    clip: FoundModel | FoundEndpoint, prompts: Prompts, precision: Precision | None, dimensions: int | None
) -> list[str]:
    """What decides the vectors in a collection beside the files, and was otherwise in version 0.2.0."""
    recipe = [f"document prompt: {prompts.document}"] if prompts.document != prompts.unasked else []
    if _is_siglip(clip):
        recipe.append("texts padded to the end")
    if precision is not None:
        recipe.append(f"precision: {precision}")
    if dimensions is not None:
        recipe.append(f"dimensions: {dimensions}")
    return recipe


def _is_siglip(clip: FoundModel | FoundEndpoint) -> bool:
    """By its configuration; one that can't be read is complained of by whoever loads the model."""
    if isinstance(clip, FoundEndpoint):
        return False
    try:
        return bool(json.loads((clip.path / "config.json").read_bytes())["model_type"] == "siglip")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _file_digests(path: Path) -> list[bytes]:
    """SHA-256 of each file that decides the vectors: weights, configurations, tokenizers."""
    digests = []
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file.suffix in (*WEIGHT_SUFFIXES, ".json", ".txt", ".model"):
            with file.open("rb") as opened:
                digests.append(hashlib.file_digest(opened, "sha256").digest())
    return digests


def _fingerprint(models: Iterable[Iterable[bytes]], recipe: Iterable[str]) -> str:
    """SHA-256 over the files, and how they are used where that is otherwise than in version 0.2.0."""
    digest = hashlib.sha256()
    for file in (file for model in models for file in model):
        digest.update(file)
    for step in recipe:
        digest.update(hashlib.sha256(step.encode()).digest())
    return digest.hexdigest()
