"""The import rule: a room imports only rooms below it, and what answers --help does not import torch."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src/fer_exp"
# From top to bottom. Rooms of one row do not import each other.
ROOMS = (
    ("commands",),
    ("sweeps",),
    ("evaluation", "comparison"),
    ("training",),
    ("runs",),
    ("models", "data"),
    ("config",),
    ("plots",),
    ("metrics", "files", "errors"),
)
RANKS = {room: rank for rank, row in enumerate(ROOMS) for room in row}
COMMANDS = ("train", "compare", "evaluate", "predict", "export", "audit", "cli")
HEAVY = ("torch", "torchvision", "torchmetrics", "lightning", "timm", "scipy", "matplotlib", "sklearn", "pandas")
# Modules that are imported before torch: by --help, config errors and path errors.
LIGHT = (
    *(f"{name}.py" for name in (*COMMANDS, "errors", "files", "metrics")),
    *("config/*.py", "runs/record.py", "runs/folder.py", "sweeps/jobs.py", "plots/terminal.py"),
)


def room_of(parts: tuple[str, ...]) -> str:
    return "commands" if parts[0] in COMMANDS else parts[0]


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    """The full names of the modules that a file imports, in functions and for type checking too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


FILES = sorted(path for path in SRC.rglob("*.py") if path.parent != SRC or path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_module_imports_only_rooms_below_its_own(path):
    room = room_of(path.relative_to(SRC).with_suffix("").parts)
    for name in imports(path):
        package, *parts = name.split(".")
        if package == "fer_exp" and room_of(tuple(parts)) != room:
            assert RANKS[room] < RANKS[room_of(tuple(parts))], f"{room} imports {name}"


@pytest.mark.parametrize(
    "path", sorted({path for pattern in LIGHT for path in SRC.glob(pattern)}), ids=lambda p: p.name
)
def test_light_modules_do_not_import_torch(path):
    seen, todo = set(), [path]
    while todo:
        current = todo.pop()
        seen.add(current)
        for name in imports(current, top_level_only=True):
            package, *parts = name.split(".")
            assert package not in HEAVY, f"{current.relative_to(SRC)} imports {name}"
            if package == "fer_exp":
                modules = (SRC.joinpath(*parts[:n]) for n in range(1, len(parts) + 1))
                files = (file for place in modules for file in (place.with_suffix(".py"), place / "__init__.py"))
                todo += [file for file in files if file.is_file() and file not in seen]
