"""The house: imports only point down, --help stays fast, every recipe has the one skeleton."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dltoolkit import recipe

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"config", "errors", "files", "interrupt", "lazy", "lines", "machine", "option_names", "recipe"},
    {"data", "models"},
    {"run", "model_file", "training", "evaluation"},
    {"recipes"},
    {"cli", "doctor", "output", "__main__"},
]


def imports(file: Path) -> set[str]:
    """The rooms of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("dltoolkit.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "dltoolkit":
            found |= {f"dltoolkit.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dltoolkit."):
            found.add(node.module)
    return {name.split(".")[1] for name in found}


def sources() -> list[tuple[Path, str]]:
    files = [(path, "recipes") for path in sorted((ROOT / "recipes").glob("*.py"))]
    for path in sorted((ROOT / "dltoolkit").rglob("*.py")):
        place = path.relative_to(ROOT / "dltoolkit").parts[0]
        if place != "__init__.py":
            files.append((path, place.removesuffix(".py")))
    return files


def test_every_room_has_a_floor_and_imports_point_down():
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for path, room in sources():
        assert room in floor_of, f"{path} stands on no floor"
        for other in imports(path):
            assert floor_of.get(other, 0) <= floor_of[room], f"{path} ({room}) imports {other} from a floor above"


def test_recipes_do_not_know_each_other():
    for path, room in sources():
        if room == "recipes":
            assert "recipes" not in imports(path), path


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list"], ["train", "--help"], ["train", "image-classifier", "--help"]]
)
def test_help_never_imports_tensorflow(words, tmp_path):
    code = (
        "import sys; from dltoolkit import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_has_the_one_skeleton(name):
    module = recipe.load(name)
    for part in ("Config", "build_data", "build_model", "train", "evaluate"):
        assert hasattr(module, part), part
    assert hasattr(module, "predict") or hasattr(module, "generate")
    assert f"dltoolkit train {name}" in module.__doc__, "the run command opens the docstring"
    assert module.Config()


def test_names_that_say_nothing_are_not_used():
    for path, _ in sources():
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
