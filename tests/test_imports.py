"""Which room may import which, and what nothing may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "monai_fedlora"

# Rooms from the ground up: a folder or a module of the package imports those before it, and none behind it.
ORDER = (
    *("errors", "environment", "out_of_memory", "catalogues", "source_digest", "files", "scratch", "patient_codes"),
    *("tracker_names", "encoding", "resources", "measures", "formats", "transforms", "data", "studies", "site_report"),
    *("privacy", "networks", "adapters", "scope", "methods", "engines", "tasks"),
    *("federated", "rendering", "exporting", "clinic", "auditing", "comparison"),
    *("reporting", "serve", "api", "commands", "cli"),
)
_TRAINING = {"adapters", "methods", "engines", "tasks", "federated"}
# Rooms that know nothing of each other although one stands above the other.
APART = {
    "measures": {"environment", "out_of_memory", "catalogues", "source_digest", "files", "scratch", "tracker_names"}
    | {"encoding", "resources"},
    "privacy": {"measures", "formats", "transforms", "data", "studies", "site_report", "encoding"},
    "networks": {"measures", "formats", "transforms", "data", "studies", "site_report"},
    "rendering": {"measures", "formats", "transforms", "data", "networks", *_TRAINING},
    "clinic": {*_TRAINING, "rendering"},
    "comparison": {"clinic", "auditing"},
    "reporting": {"clinic", "auditing"},
    "serve": {*_TRAINING, "rendering", "auditing", "comparison", "reporting"},
}
FORBIDDEN_EVERYWHERE = {
    "torchvision",
    "timm",
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}


@cache
def sources(folder: str) -> tuple[Path, ...]:
    return tuple(sorted((REPOSITORY / folder).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imported(path: Path) -> tuple[tuple[str, int], ...]:
    """The dotted name and the line of everything a file imports, at any depth."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    package = path.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*origin, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    return name.split(".")[1]


@cache
def arrows() -> dict[str, dict[str, int]]:
    """For every module those of the package that it imports, and in which line; also inside functions and for types.

    The package's own ``__init__`` is left out: for users it names what lies in all rooms.
    """
    modules = {name_of(path): path for path in sources("monai_fedlora")}
    found: dict[str, dict[str, int]] = {name: {} for name in modules if name != "monai_fedlora"}
    for module, lines in found.items():
        for name, line in imported(modules[module]):
            while "." in name and name not in modules:
                name = name.rpartition(".")[0]
            if name in found and name != module:
                lines.setdefault(name, line)
    return found


@pytest.mark.parametrize("room", ORDER)
def test_rooms_import_downwards_only(room: str) -> None:
    allowed = {*ORDER[: ORDER.index(room) + 1]} - APART.get(room, set())
    wrong = [
        f"{module}:{line} imports {name}"
        for module, lines in arrows().items()
        for name, line in lines.items()
        if room_of(module) == room and room_of(name) not in allowed
    ]
    assert wrong == []


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in arrows()} == set(ORDER)


def test_no_module_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


@pytest.mark.slow
def test_inside_the_package_its_table_of_names_is_not_used() -> None:
    used = {name for path in sources("monai_fedlora") for name, _ in imported(path) if name.count(".") == 1}
    assert {name.partition(".")[2] for name in used if within(name, "monai_fedlora")} <= {"__version__", *ORDER}


@pytest.mark.slow
def test_only_the_federated_room_imports_nvflare() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sources("monai_fedlora")
        if PACKAGE / "federated" not in path.parents
        for name, line in imported(path)
        if within(name, "nvflare")
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["monai_fedlora", "tests", "bundles", "nvflare_jobs", "benchmarks"])
def test_nothing_imports_what_can_run_code_from_a_file(folder: str) -> None:
    """Only files that hold such a word are parsed, which is far faster."""
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        for path in sources(folder)
        if any(name in path.read_text(encoding="utf-8") for name in FORBIDDEN_EVERYWHERE)
        for name, line in imported(path)
        if name.partition(".")[0] in FORBIDDEN_EVERYWHERE
    ]
    assert wrong == []


def keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["monai_fedlora", "tests", "bundles", "nvflare_jobs", "benchmarks"])
def test_files_are_never_unpickled(folder: str) -> None:
    """Only files that hold ``.load`` are parsed."""
    wrong = []
    for path in sources(folder):
        for node in ast.walk(tree(path)) if ".load" in path.read_text(encoding="utf-8") else ():
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "torch.load" and keyword(node, "weights_only") is not True:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} torch.load without weights_only=True")
            if called in ("np.load", "numpy.load") and keyword(node, "allow_pickle"):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} numpy.load with allow_pickle")
    assert wrong == []


@pytest.mark.parametrize(
    "statement",
    ["import monai_fedlora", "from monai_fedlora import cli; cli.build_parser()", "import monai_fedlora.files"],
)
def test_light_imports_stay_light(statement: str) -> None:
    heavy = "torch", "nvflare", "monai", "transformers", "peft", "numpy", "sklearn", "matplotlib", "jinja2"
    program = f"import sys; {statement}; print(*[name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.split() == []


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    for path in sources("monai_fedlora"):
        import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"))


def test_relative_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    path = tmp_path / "monai_fedlora" / "networks" / "bad.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from ..adapters import lora\nfrom . import cinema\nfrom .backbone import Backbone\n")
    assert {name for name, _ in imported(path)} == {
        "monai_fedlora.adapters.lora",
        "monai_fedlora.networks.cinema",
        "monai_fedlora.networks.backbone.Backbone",
    }
