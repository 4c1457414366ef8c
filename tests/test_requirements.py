"""The requirements say what the code imports, constraints.txt pins all of it, and this environment is what they say.

A role is a part of the code and the requirements file that must suffice for it.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.processes import ROOT

WEB = "requirements-web.txt"
# All that the Dockerfile's `web` image has of our code.
WEB_FILES = (
    "web_demo.py",
    "pages",
    "web",
    "clients/__init__.py",
    "clients/patience.py",
    "data_models.py",
    "tuwen/__init__.py",
    "tuwen/errors.py",
    "tuwen/limit_settings.py",
    "tuwen/settings.py",
    "tuwen/texts.py",
)
OTHER_ROLES = {
    "tests": "requirements-dev.txt",
    "training": "training/requirements.txt",
    "demo": "demo/requirements.txt",
    "benchmarks": "benchmarks/requirements.txt",
    "evaluation": "evaluation/requirements.txt",
}
# For people who bring their own checkpoint, in an environment of its own with another torch: without the constraints.
EXTRA = "requirements-cn-clip.txt"
# What ENCODER_PRECISION=int8 needs.
INT8 = "requirements-int8.txt"
# What the service is compared with, in environments of their own, too.
RIVALS = ("benchmarks/requirements-evening.txt", "benchmarks/requirements-infinity.txt")
FILES = sorted({*(path.name for path in ROOT.glob("requirements*.txt")), *OTHER_ROLES.values()} - {EXTRA})
NOT_FOR_THE_PAGES = {"torch", "transformers", "sentence-transformers", "diffusers", "pymilvus", "sqlalchemy"}


def lines_of(name: str) -> list[str]:
    """Without comments and empty lines."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def declared(name: str, included: bool = True) -> list[Requirement]:
    """What a requirements file asks for, with the files that it includes by -r."""
    requirements = []
    for line in lines_of(name):
        if not line.startswith("-r "):
            requirements.append(Requirement(line))
        elif included:
            file = (ROOT / name).parent / line.removeprefix("-r ")
            requirements += declared(str(file.resolve().relative_to(ROOT)))
    return requirements


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def exact_version(requirement: Requirement) -> str:
    specifiers = list(requirement.specifier)
    assert [each.operator for each in specifiers] == ["=="], f"{requirement} is not pinned to one version"
    return specifiers[0].version


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


@cache
def constraints() -> dict[str, str]:
    """The version of each package for this platform."""
    pins = [requirement for requirement in map(Requirement, lines_of("constraints.txt")) if applies(requirement)]
    versions: dict[str, str] = {canonicalize_name(pin.name): exact_version(pin) for pin in pins}
    assert len(versions) == len(pins), "a package is pinned twice for one platform"
    return versions


@cache
def installed() -> dict[str, str]:
    """Versions without a build's label: torch 2.13.0+cpu is torch 2.13.0."""
    return {canonicalize_name(each.name): Version(each.version).public for each in metadata.distributions()}


def dependencies(roots: Iterable[Requirement]) -> set[str]:
    """The roots and all that they bring in turn, here, by what the installed packages say of themselves."""
    found: set[tuple[str, str]] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        new = {(name, extra) for extra in ("", *requirement.extras)} - found
        found |= new
        if name in installed():
            brought = [Requirement(text) for text in metadata.requires(name) or []]
            waiting += [each for _, extra in new for each in brought if applies(each, extra)]
    return {name for name, _ in found}


# --- The files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_as_in_the_constraints(name: str) -> None:
    for requirement in declared(name, included=False):
        version = constraints().get(canonicalize_name(requirement.name))
        assert exact_version(requirement) == version, f"{name}: {requirement}. After a change there: make constraints"


def test_what_has_an_environment_of_its_own_is_pinned() -> None:
    assert all(exact_version(requirement) for name in (EXTRA, *RIVALS) for requirement in declared(name))


def test_a_version_is_said_once_in_what_one_command_installs() -> None:
    for name in ("requirements-dev.txt", "requirements.txt"):
        requirements = declared(name)
        assert len(names(requirements)) == len(requirements), name


def test_the_constraints_name_no_index_no_path_and_no_hash() -> None:
    for line in lines_of("constraints.txt"):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [\w.()'<>!= ]+)?", line), line


# --- The environment -------------------------------------------------------------------------------------------------

in_the_main_environment = pytest.mark.skipif(
    "cn-clip" in installed(), reason=f"the environment of {EXTRA} has another torch, and other packages with it"
)


@in_the_main_environment
def test_nothing_that_is_installed_for_us_is_unpinned() -> None:
    assert dependencies(declared("requirements-dev.txt")) - set(constraints()) == set(), "run: make constraints"


@in_the_main_environment
def test_this_environment_is_what_the_constraints_say() -> None:
    drifted = {
        name: f"{installed().get(name, 'nothing')}, not {version}"
        for name in sorted(dependencies(declared("requirements-dev.txt")))
        if (version := constraints().get(name)) != installed().get(name)
    }
    assert drifted == {}, "This environment has drifted from constraints.txt. `make clean test` makes it anew."


def test_the_pages_bring_no_models() -> None:
    assert dependencies(declared(WEB)) & NOT_FOR_THE_PAGES == set()


# --- The imports -----------------------------------------------------------------------------------------------------


def python_files(*places: str) -> list[Path]:
    """In these files and folders, as far as they are there."""
    paths = [ROOT / place for place in places]
    return [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]) if file.is_file()]


def service_files() -> list[Path]:
    """All code but the other roles'. Folders with a dot are environments and caches."""
    tops = (path.name for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir())
    places = (name for name in tops if name not in OTHER_ROLES and not name.startswith("."))
    return python_files(*places, "demo/__init__.py", "demo/stack.py")  # `make demo` has no more than requirements.txt


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of modules; of `from a import b` both a and a.b, which may be one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def is_ours(module: str) -> bool:
    top = ROOT / module.partition(".")[0]
    return top.with_suffix(".py").is_file() or any(top.glob("**/*.py"))


def third_party(files: Iterable[Path]) -> dict[str, str]:
    """Imported top-level modules of others → one file that imports it."""
    used = {module.partition(".")[0]: path.name for path in files for module in imports_of(path)}
    return {name: file for name, file in used.items() if name not in sys.stdlib_module_names and not is_ours(name)}


@cache
def providers() -> Mapping[str, list[str]]:
    """Top-level module → the distributions that install it."""
    return metadata.packages_distributions()


def distributions_of(module: str) -> set[str]:
    """Of one that is not installed here (cn_clip, what training alone needs), its own name is the best guess."""
    return {canonicalize_name(provider) for provider in providers().get(module, [module])}


def undeclared(files: Iterable[Path], *requirements: str) -> dict[str, str]:
    allowed = names(requirement for name in requirements for requirement in declared(name))
    return {module: file for module, file in third_party(files).items() if not distributions_of(module) & allowed}


def test_the_service_declares_what_it_imports() -> None:
    files = service_files()
    assert ROOT / "main.py" in files
    assert undeclared(files, "requirements.txt", INT8, EXTRA) == {}


def test_the_pages_declare_what_they_import() -> None:
    assert undeclared(python_files(*WEB_FILES), WEB) == {}


@pytest.mark.parametrize("folder", OTHER_ROLES)
def test_the_other_roles_declare_what_they_import(folder: str) -> None:
    files = [path for path in python_files(folder) if path not in service_files()]
    assert files
    rivals = RIVALS if folder == "benchmarks" else ()
    assert undeclared(files, OTHER_ROLES[folder], *rivals) == {}


# --- The installations -----------------------------------------------------------------------------------------------


def our_files(modules: Iterable[str]) -> set[Path]:
    """The files that hold these modules, with the packages' __init__.py, for those that are ours."""
    files = set()
    for module in modules:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ROOT.joinpath(*parts[:end])
            files |= {file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()}
    return files


def test_the_image_of_the_pages_has_all_that_they_import() -> None:
    stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition(" AS web\n")[2].partition("\nFROM ")[0]
    copied = {word.rstrip("/") for line in re.findall(r"^COPY (.+) \S+$", stage, re.MULTILINE) for word in line.split()}
    assert set(WEB_FILES) <= copied
    assert {".streamlit", "deploy", WEB, "constraints.txt"} <= copied
    files = python_files(*WEB_FILES)
    assert our_files(module for path in files for module in imports_of(path)) - set(files) == set()


@pytest.mark.parametrize("name", ["Dockerfile", "Makefile"])
def test_installations_are_constrained(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("$(PIP_INSTALL)", "pip install")
    commands = [line for line in text.splitlines() if re.search(r"\bpip install .*(-r|==)", line)]
    assert any("-r requirements.txt" in line for line in commands)
    for line in commands:
        # uv makes the constraints, and depends on nothing.
        assert "-c constraints.txt" in line or "uv==$(UV_VERSION)" in line, line


def test_a_change_of_the_constraints_installs_anew() -> None:
    rules = re.findall(r"^\S+/installed\S*:.*", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rules
    assert [rule for rule in rules if "constraints.txt" not in rule] == []
