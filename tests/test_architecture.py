"""The module table of docs/decisions.md, checked against the imports: who may know whom, who owns which library."""

import ast
from pathlib import Path

from tests.processes import ROOT

OWN_MODULES = {path.stem for path in ROOT.glob("*.py")}
LEAVES = {"settings", "errors"}
MAY_IMPORT = {
    "settings": set[str](),
    "errors": set[str](),
    "data_models": {"settings"},
    "orm_models": LEAVES | {"data_models"},
    "vector_db": LEAVES,
    "nlp_models": LEAVES | {"cn_clip_checkpoint", "model_hub"},
    "cn_clip_checkpoint": LEAVES | {"nlp_models"},
    "image_store": LEAVES,
    "image_download": LEAVES,
    "model_hub": LEAVES,
    "generation": LEAVES | {"model_hub"},
    "generation_process": {"settings", "message_queue", "orm_models", "job_queries"},
    "job_queries": {"orm_models"},
    "message_queue": LEAVES | {"data_models", "orm_models"},
    "batching": {"errors"},
    "encoding": {"batching", "nlp_models", "settings"},
}
# Client library → the modules that may import it.
OWNERS = {
    "pymilvus": {"vector_db"},
    "aiokafka": {"message_queue"},
    "torch": {"nlp_models", "cn_clip_checkpoint", "generation"},
    "diffusers": {"generation"},
    "transformers": {"nlp_models"},
    "sentence_transformers": {"nlp_models"},
    "fsspec": {"image_store"},
    "alembic": {"orm_models"},
    "cn_clip": {"cn_clip_checkpoint"},
    "streamlit": set[str](),
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def service_modules() -> dict[str, set[str]]:
    return {path.stem: imports_of(path) for path in ROOT.glob("*.py") if not path.stem.startswith("web_")}


def reachable_from(module: str) -> set[str]:
    """Itself and everything of ours that it imports, however far away."""
    modules = service_modules()
    reachable = {module}
    while new := set().union(*(modules[each] & OWN_MODULES for each in reachable)) - reachable:
        reachable |= new
    return reachable


def test_every_module_imports_only_what_it_may() -> None:
    modules = service_modules()
    for module, allowed in MAY_IMPORT.items():
        assert modules[module] & OWN_MODULES <= allowed, module


def test_api_and_worker_do_not_know_each_other() -> None:
    assert "worker" not in reachable_from("main")
    for worker in ("worker", "generation_worker"):
        assert "main" not in reachable_from(worker)


def test_the_api_never_loads_a_diffusion_pipeline() -> None:
    assert not {"generation", "generation_worker"} & reachable_from("main")


def test_every_client_library_has_one_owner() -> None:
    for module, imported in service_modules().items():
        for library, owners in OWNERS.items():
            assert library not in imported or module in owners, f"{module} imports {library}"


def test_the_pages_know_the_service_only_over_http() -> None:
    pages = [*ROOT.glob("web_*.py"), *ROOT.glob("pages/*.py")]
    assert pages
    for page in pages:
        own = imports_of(page) & OWN_MODULES
        allowed = {"settings", "data_models"}
        assert all(name in allowed or name.startswith("web_") for name in own), f"{page.name} imports {own}"
