"""Find, describe and import recipe files. The recipes folder's listing is the list; nothing else keeps one."""

import ast
import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

from dltoolkit.errors import UserError, suggestion

PACKAGE = "dltoolkit.recipes"


def names() -> dict[str, Path]:
    """Return the recipes that ship, ``{"image-classifier": path}``, in alphabetical order."""
    folder = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0])
    files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return {path.stem.replace("_", "-"): path for path in files}


def is_file(recipe: str) -> bool:
    """Tell whether ``recipe`` means a file of the user's rather than a recipe's name."""
    return recipe.endswith(".py")


def summary(path: Path) -> str:
    """Return the first line of a recipe's docstring without importing the recipe."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def load(recipe: str) -> ModuleType:
    """Import a recipe by name (``image-classifier``) or by file (``./mine.py``).

    Raises:
        UserError: if there is no such recipe, or the file lacks ``Config`` or ``train``.
    """
    if not is_file(recipe):
        known = names()
        if recipe not in known:
            raise UserError(
                f"There is no recipe '{recipe}'; choose from {', '.join(known)} or give a .py file."
                f"{suggestion(recipe, known)}"
            )
        return importlib.import_module(f"{PACKAGE}.{known[recipe].stem}")
    path = Path(recipe).expanduser().resolve()
    if not path.is_file():
        raise UserError(
            f"There is no recipe file {recipe}; 'dltoolkit copy image-classifier .' makes one to start from."
        )
    module_name = f"dltoolkit_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{recipe} is not valid Python: {error.msg} in line {error.lineno}.") from None
    missing = [name for name in ("Config", "train") if not hasattr(module, name)]
    if missing:
        raise UserError(f"{recipe} is no recipe: it does not define {' and '.join(missing)}.")
    return module


def copy(recipe: str, folder: str | Path) -> Path:
    """Copy a recipe's file into ``folder`` for the user to change, never over an existing file."""
    known = names()
    if recipe not in known:
        raise UserError(f"There is no recipe '{recipe}'; choose from {', '.join(known)}.{suggestion(recipe, known)}")
    folder = Path(folder).expanduser()
    target = folder / known[recipe].name
    if target.exists():
        raise UserError(f"{target} exists already; name another folder or move it away.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(known[recipe], target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}.") from None
    return target
