"""The rules of the house: who may import whom, what starts without torch, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import perpixel

PACKAGE = Path(perpixel.__file__).parent
LONGEST_FILE = 400

BASE = {"labels", "label_regions", "lazy_names", "types", "errors", "strict_yaml"}
BELOW_BACKBONES = {"layers", "ops", *BASE}
MODELS_AND_BELOW = {"backbones", *BELOW_BACKBONES}
MIDDLE = {"inference", "data", "losses", "metrics"}
ENGINE_LEVEL = {"engine", "evaluation", "weights"}

MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"bench", "build", "recipes", "report", "config", *ENGINE_LEVEL, *MIDDLE, "models", *MODELS_AND_BELOW},
    "bench": {"build", "config", *ENGINE_LEVEL, *MIDDLE, "models", *MODELS_AND_BELOW},
    "build": {"recipes", "report", "config", *ENGINE_LEVEL, *MIDDLE, "models", *MODELS_AND_BELOW},
    "recipes": {"config", *BASE},
    "report": {"config", *MIDDLE, *BASE},
    "config": BASE,
    "evaluation": {*MIDDLE, "models", *MODELS_AND_BELOW},
    "weights": {"engine", "config", *MIDDLE, "models", *MODELS_AND_BELOW},
    "engine": {*MIDDLE, *MODELS_AND_BELOW},
    "inference": {"data", "metrics", *MODELS_AND_BELOW},
    "data": MODELS_AND_BELOW,
    "losses": MODELS_AND_BELOW,
    "metrics": MODELS_AND_BELOW,
    "models": MODELS_AND_BELOW,
    "backbones": BELOW_BACKBONES,
    "layers": {"ops", *BASE},
    "ops": BASE,
    "labels": {"types", "errors", "strict_yaml"},
    "label_regions": {"errors"},
    "strict_yaml": set(),
    "lazy_names": set(),
    "types": {"errors"},
    "errors": set(),
}
"""Design section 2: a room may import itself, the package root (which imports nothing) and these.

Rooms of one level stand in one order, so that no two import each other. Losses, metrics, data and inference see no
model, models no loss, the engine no model, recipe or config.
"""

NO_TORCH = ("perpixel", "perpixel.config", "perpixel.recipes", "perpixel.cli", "perpixel.labels")
OPTIONAL = {"torch.utils.tensorboard", "rasterio", "h5py", "defusedxml"}
"""Packages of extras: imported where they are used, with a message that names the extra."""
SLOW = {
    "timm.layers.norm_act",
    "torch.distributed.checkpoint.api",
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.state_dict_loader",
    "torch.distributed.checkpoint.state_dict_saver",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
}
"""Slow to import and needed by runs of several processes alone."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement of the package."""

    module: str
    """The importing module."""
    target: str
    line: int
    in_function: bool
    typing_only: bool


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["perpixel", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    yield from _walk(module, tree, in_function=False, typing_only=False)


def _walk(module: str, node: ast.AST, *, in_function: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inner = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        targets = []
        if isinstance(child, ast.Import):
            targets = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno}: relative import"
            base = child.module or ""
            inside = [f"{base}.{alias.name}" for alias in child.names]
            targets = [name if name in MODULES else base for name in inside]
        for target in dict.fromkeys(targets):
            yield Import(module=module, target=target, line=child.lineno, in_function=inner, typing_only=typing)
        yield from _walk(module, child, in_function=inner, typing_only=typing)


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def room(module: str) -> str:
    """The part after ``perpixel.``; empty for the root and ``__main__``, which stand above all rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else ""


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "perpixel"


def test_imports_between_rooms_only_run_in_the_stated_directions() -> None:
    wrong = [
        f"{found.module}:{found.line} imports {found.target}"
        for found in IMPORTS
        if is_ours(found.target)
        and room(found.module)
        and room(found.target)
        and room(found.target) != room(found.module)
        and room(found.target) not in MAY_IMPORT[room(found.module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_table_of_directions_has_no_cycle() -> None:
    assert set(TopologicalSorter(MAY_IMPORT).static_order()) == set(MAY_IMPORT)


def test_rooms_all_stand_in_the_table() -> None:
    assert {room(module) for module in MODULES} - {""} == set(MAY_IMPORT)


def test_imports_of_modules_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        if is_ours(found.target) and not found.typing_only and not found.in_function:
            graph[found.module].add(found.target)
    try:
        order = tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")
    assert len(order) == len(MODULES)


def test_imports_inside_functions_are_only_the_lazy_ones() -> None:
    wrong = [
        f"{found.module}:{found.line} imports {found.target} inside a function"
        for found in IMPORTS
        if found.in_function and room(found.module) not in ("cli", "") and found.target not in OPTIONAL | SLOW
    ]
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_imported_inside_functions_alone() -> None:
    wrong = [f"{f.module}:{f.line}" for f in IMPORTS if f.target in OPTIONAL and not (f.in_function or f.typing_only)]
    assert not wrong


def test_root_package_imports_nothing_of_ours_at_start() -> None:
    assert not [f for f in IMPORTS if f.module == "perpixel" and is_ours(f.target) and not f.typing_only]


@pytest.mark.parametrize("name", ["utils.py", "misc.py", "helpers.py", "common.py"])
def test_files_named_for_nothing_do_not_exist(name: str) -> None:
    assert not list(PACKAGE.rglob(name))


def test_files_stay_short() -> None:
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES.values()}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_print_is_called_in_the_command_line_alone() -> None:
    wrong = []
    for module, path in MODULES.items():
        if room(module) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{module}:{node.lineno}")
    assert not wrong


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def assert_no_torch(names: tuple[str, ...]) -> None:
    done = run_python(
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules and 'timm' not in sys.modules, name"
    )
    assert done.returncode == 0, done.stderr


def test_light_modules_import_no_torch() -> None:
    assert_no_torch(NO_TORCH)


@pytest.mark.parametrize("tokens", [["--help"], ["--version"], ["train", "--help"], ["recipes"]])
def test_command_line_without_work_loads_no_torch(tokens: list[str]) -> None:
    done = run_python(
        f"import sys; from perpixel.cli import main; code = main({tokens!r}); "
        "assert 'torch' not in sys.modules, 'torch'; sys.exit(code)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_loads_no_command() -> None:
    done = run_python(
        "import sys; from perpixel.cli import COMMANDS, main; main(['--help']); "
        "assert not {target.partition(':')[0] for target, _ in COMMANDS.values()} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
