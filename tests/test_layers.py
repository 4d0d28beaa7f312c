"""Imports flow one way: read from the syntax trees of dist_train, so nothing has to run.

A rule says what a room may reach, however many imports lie between; a new file needs no entry here.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dist_train"
DATA = (
    *("archive", "stores", "supply", "effects", "spectra", "batched"),
    *("subset", "choice", "shards", "view", "clouds", "storage", "reader", "window", "check", "sounds"),
    *("decode", "resample", "waves", "augment", "features", "precision", "frontend", "preview"),
)
TOP = ("engine", "step", "evaluate", "checkpoint", "log", "runs", "inference", "world", "objective", "optim", "models")
LAUNCHER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}
PRINTERS = {"command", "log", "console", "screen", "__main__"}


def _name(path: Path) -> str:
    """`dist_train/models/pooling.py` -> `models.pooling`; a package's `__init__.py` -> the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(PATHS[name].read_text(encoding="utf-8"))


@cache
def _imports(name: str) -> frozenset[str]:
    """Full dotted names that a module imports, wherever in the file: modules, and `module.attribute` for `from`."""
    parts = ["dist_train", *name.split(".")]
    package = parts if PATHS[name].stem == "__init__" else parts[:-1]
    found: set[str] = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _ours(name: str) -> set[str]:
    """Modules of ours that a module imports itself; of a package only the file that holds the name, if it has one."""
    found = {full.removeprefix("dist_train.") for full in _imports(name) if full.startswith("dist_train.")}
    return {inner if inner in PATHS else inner.rpartition(".")[0] for inner in found} & set(PATHS)


def _reach(name: str) -> set[str]:
    """All modules of ours that importing `name` pulls in."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        waiting += (new := _ours(waiting.pop()) - seen)
        seen |= new
    return seen


def _inside(*rooms: str) -> list[str]:
    """The files of rooms; a room is a file or a package."""
    return [name for name in PATHS if name.split(".")[0] in rooms]


def _calls(name: str) -> list[ast.Call]:
    return [node for node in ast.walk(_tree(name)) if isinstance(node, ast.Call)]


def _rooms(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("name", PATHS)
def test_no_import_leads_back(name: str) -> None:
    assert name not in _reach(name), f"{name} imports itself, perhaps by a detour"


@pytest.mark.parametrize("room", sorted({name.split(".")[0] for name in PATHS}))
def test_no_room_leads_back(room: str) -> None:
    """A package and a file beside the packages are rooms: of two rooms at most one reaches the other."""
    seen: set[str] = set()
    waiting = {room}
    while waiting:
        now = waiting.pop()
        new = {other for name in _inside(now) for other in _rooms(_ours(name))} - {now} - seen
        seen |= new
        waiting |= new
    assert room not in seen


@pytest.mark.parametrize("name", _inside("order", "settings"))
def test_pure_files_know_nothing_of_ours(name: str) -> None:
    assert _rooms(_reach(name)) <= {"settings"}


def test_config_knows_only_the_settings() -> None:
    assert _rooms(_reach("config")) <= {"settings", "presets"}


@pytest.mark.parametrize("name", _inside("models"))
def test_models_know_nothing_but_models(name: str) -> None:
    assert _rooms(_reach(name)) <= {"models"}


@pytest.mark.parametrize("name", _inside(*DATA))
def test_data_code_knows_no_model_and_no_engine(name: str) -> None:
    assert _rooms(_reach(name)) & set(TOP) == set()


@pytest.mark.parametrize("name", _inside("packing", "sources", "assembly", "demo", "fetch", "inspection"))
def test_packing_knows_no_model_and_no_engine(name: str) -> None:
    assert _rooms(_reach(name)) & set(TOP) == set()


@pytest.mark.parametrize("name", _inside("objective", "optim", "world", "checkpoint"))
def test_parts_of_the_engine_know_neither_data_nor_models(name: str) -> None:
    assert _rooms(_reach(name)) & {*DATA, "models", "packing", "engine"} == set()


@pytest.mark.parametrize("name", [name for name in PATHS if name != "__main__"])
def test_nothing_imports_what_sits_on_top(name: str) -> None:
    assert "__main__" not in _ours(name)
    assert {full for full in _imports(name) if full.split(".")[0] in ("tools", "tests")} == set()


@pytest.mark.parametrize("name", [name for name in PATHS if name != "world"])
def test_only_world_touches_process_groups_and_launchers(name: str) -> None:
    distributed = {full for full in _imports(name) if full.startswith(("torch.distributed", "accelerate"))}
    constants = {node.value for node in ast.walk(_tree(name)) if isinstance(node, ast.Constant)}
    texts = {value for value in constants if isinstance(value, str)}
    assert distributed == set()
    assert "torch.distributed." not in ast.unparse(_tree(name))
    assert {text for text in texts if text in LAUNCHER or text.startswith(("SLURM_", "ACCELERATE_", "PET_"))} == set()


@pytest.mark.parametrize("name", [name for name in PATHS if name.split(".")[0] not in PRINTERS])
def test_only_the_log_prints(name: str) -> None:
    calls = {ast.unparse(call.func) for call in _calls(name)}
    assert {"print", "sys.stdout.write", "sys.stderr.write"} & calls == set()
    assert {full for full in _imports(name) if full.split(".")[0] in ("rich", "logging")} == set()


@pytest.mark.parametrize("name", [name for name in PATHS if name != "checkpoint"])
def test_only_checkpoints_write_tensors(name: str) -> None:
    assert "torch.save" not in {ast.unparse(call.func) for call in _calls(name)}


@pytest.mark.parametrize("name", PATHS)
def test_nothing_is_unpickled(name: str) -> None:
    assert {full for full in _imports(name) if full.split(".")[0] in ("pickle", "dill", "joblib")} == set()
    loads = [ast.unparse(call) for call in _calls(name) if ast.unparse(call.func) == "torch.load"]
    assert [load for load in loads if "weights_only=True" not in load] == []
