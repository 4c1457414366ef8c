"""The house's rules, checked for every module: what it may import of ours, which client libraries it may own, its size.

`docs/architecture.md` draws what stands here as tables.
"""

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT

DOORS = {"main", "worker", "cli", "web_demo"}
ROOT_MODULES = DOORS | {"data_models", "orm_models", "nlp_models", "vector_db"}
FOLDERS = {"tuwen", "web", "pages", "clients", "demo", "evaluation", "training", "migrations", "deploy"}
NOT_OURS = {"tests", "data", "models"}

BASE = {"data_models", "tuwen.errors", "tuwen.settings"}
ENGINES = {
    "orm_models",
    "vector_db",
    "tuwen.background",
    "tuwen.encoders",
    "tuwen.messaging",
    "tuwen.pictures",
    "tuwen.vectors",
}
ROOMS = {"tuwen.catalogue", "tuwen.search", "tuwen.generation", "tuwen.indexing"}
# A place is a module, or a folder with all that is in it; the narrowest that fits a module counts. Inside its own place
# a module may import what it likes. From the ground up:
MAY_IMPORT: dict[str, set[str]] = {
    "tuwen": set(),
    "tuwen.errors": set(),
    "tuwen.settings": set(),
    "data_models": {"tuwen.settings"},
    "tuwen.background": {"tuwen.errors"},
    "tuwen.encoders.base": set(),  # numbers and promises: an engine that knows no other may know these
    # Engines. Each is one system outside of ours, or the place where two of them meet.
    "orm_models": BASE,
    "vector_db": BASE | {"tuwen.encoders.base"},
    "tuwen.pictures": BASE,
    "tuwen.encoders": BASE,
    "nlp_models": BASE | {"tuwen.encoders"},
    "tuwen.messaging": BASE | {"tuwen.background", "orm_models"},
    "tuwen.vectors": BASE | {"tuwen.encoders.base", "orm_models", "vector_db"},
    # Rooms, each over those that it stands on.
    "tuwen.catalogue": BASE | {"orm_models", "tuwen.messaging", "tuwen.pictures", "tuwen.vectors"},
    "tuwen.search": BASE | ENGINES | {"tuwen.catalogue"},
    "tuwen.generation": BASE | ENGINES | {"tuwen.catalogue", "tuwen.search"},
    "tuwen.indexing": BASE | ENGINES | {"tuwen.catalogue", "tuwen.generation.queries"},
    # What puts them together, HTTP, and the doors.
    "tuwen.assembly": BASE | ENGINES | ROOMS | {"nlp_models"},
    "tuwen.api": BASE | ENGINES | ROOMS | {"tuwen.assembly"},
    "main": BASE | ENGINES | ROOMS | {"tuwen.assembly", "tuwen.api"},
    "worker": BASE | ENGINES | ROOMS | {"tuwen.assembly"},
    "cli": BASE | ENGINES | ROOMS | {"tuwen.assembly", "main", "clients", "demo", "evaluation"},
    # Over HTTP alone.
    "web": {"data_models", "tuwen.settings"},
    "pages": {"data_models", "tuwen.settings", "web"},
    "web_demo": {"web"},
    "clients": {"tuwen.errors"},
    "demo": {"tuwen.errors", "tuwen.settings"},
    "evaluation": {"clients"},
    # Beside the service.
    "migrations": {"orm_models"},
    "deploy": set(),
    "training": {"tuwen.encoders", "evaluation", "demo"},
}
# Client library → the places that may import it.
OWNERS: dict[str, set[str]] = {
    "aiokafka": {"tuwen.messaging.kafka"},
    "alembic": {"orm_models", "migrations"},
    "cachetools": {"tuwen.encoders.service"},
    "cn_clip": {"tuwen.encoders.cn_clip"},
    "diffusers": {"tuwen.generation.pipeline", "training"},
    "fastapi": {"main", "tuwen.api"},
    "fsspec": {"tuwen.pictures.store"},
    "httpx": {"tuwen.pictures.download", "web.client", "clients", "cli", "demo.stack", "evaluation"},
    "huggingface_hub": {"tuwen.encoders.hub"},
    "jieba": {"vector_db", "training"},
    "modelscope_hub": {"tuwen.encoders.hub"},
    "prometheus_client": {"tuwen.api.metrics", "tuwen.api.operation"},
    "pymilvus": {"vector_db"},
    "rich": {"cli", "evaluation"},
    "sentence_transformers": {"tuwen.encoders.sentence", "training"},
    "sqlalchemy": {"orm_models", "migrations", "tuwen.catalogue", "tuwen.generation.queries", "tuwen.indexing",
                   "tuwen.messaging.outbox", "tuwen.vectors"},
    "starlette": {"tuwen.api"},
    "streamlit": {"web", "pages"},
    "tenacity": {"tuwen.background"},
    "torch": {"tuwen.encoders.device", "tuwen.encoders.transformers_clip", "tuwen.encoders.cn_clip",
              "tuwen.generation.pipeline", "training"},
    "transformers": {"tuwen.encoders.transformers_clip", "training"},
    "typer": {"cli"},
}  # fmt: skip


class Import(NamedTuple):
    module: str
    """The one that imports."""
    imported: str
    where: str
    """File and line."""


@cache
def sources() -> dict[str, Path]:
    """Every module of ours, by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0].startswith(".") or parts[0] in NOT_OURS or "__pycache__" in parts:
            continue
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports() -> list[Import]:
    return [each for module, path in sources().items() for each in imports_of(module, path)]


def imports_of(module: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: imports are absolute here"
            assert node.module is not None, "only a relative import has none"
            for alias in node.names:  # `from package import module` is an import of that module
                inner = f"{node.module}.{alias.name}"
                yield Import(module, inner if inner in sources() else node.module, where)


def is_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def place_of(module: str) -> str | None:
    """The narrowest rule that there is for it. The package `tuwen` itself is no room for modules without one."""
    places = [place for place in MAY_IMPORT if is_in(module, place) and (place != "tuwen" or module == place)]
    return max(places, key=len, default=None)


def ours() -> list[Import]:
    return [each for each in imports() if each.imported in sources()]


def test_every_module_has_a_rule() -> None:
    assert {module.split(".")[0] for module in sources()} <= ROOT_MODULES | FOLDERS
    assert [str(path.relative_to(ROOT)) for module, path in sources().items() if place_of(module) is None] == []
    assert [place for place in MAY_IMPORT if not any(is_in(module, place) for module in sources())] == []


def test_arrows_run_only_where_they_may() -> None:
    wrong = []
    for module, imported, where in ours():
        place = place_of(module)
        assert place is not None, f"{where}: {module} has no rule"
        if not is_in(imported, place) and not any(is_in(imported, allowed) for allowed in MAY_IMPORT[place]):
            wrong.append(f"{where}: {module} may not import {imported}")
    assert wrong == []


def test_there_is_no_circle() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in sources()}
    for module, imported, _ in ours():
        if imported != module:
            arrows[module].add(imported)
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
        pairs = set(zip(circle[1:], circle[:-1], strict=True))
        pytest.fail("\n".join(each.where for each in ours() if (each.module, each.imported) in pairs))


def test_every_client_library_has_its_owner() -> None:
    wrong = [
        f"{where}: {module} imports {imported}, which belongs to {', '.join(sorted(owners))}"
        for module, imported, where in imports()
        if (owners := OWNERS.get(imported.split(".")[0])) and not any(is_in(module, owner) for owner in owners)
    ]
    assert wrong == []


def reachable_from(module: str) -> set[str]:
    """Itself and everything of ours that it imports, however far away."""
    reachable = {module}
    while new := {each.imported for each in ours() if each.module in reachable} - reachable:
        reachable |= new
    return reachable


def test_the_doors_do_not_know_each_other() -> None:
    assert "worker" not in reachable_from("main")
    for worker in ("worker", "tuwen.generation.worker"):
        assert "main" not in reachable_from(worker)
        assert not any(is_in(module, "tuwen.api") for module in reachable_from(worker))


def test_the_api_never_loads_a_diffusion_pipeline() -> None:
    assert not {"tuwen.generation.pipeline", "tuwen.generation.worker"} & reachable_from("main")


def test_nothing_grows_too_long_to_read() -> None:
    wrong = []
    for module, path in sources().items():
        if not is_in(module, "tuwen") and module not in ROOT_MODULES:
            continue
        text = path.read_text(encoding="utf-8")
        if is_in(module, "tuwen") and text.count("\n") > 300:
            wrong.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 40:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines")
    assert wrong == []


def test_main_is_a_door() -> None:
    assert sources()["main"].read_text(encoding="utf-8").count("\n") <= 120
