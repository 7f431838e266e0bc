"""Find, describe, import and copy recipe files. The files in the recipes folder are the list of recipes."""

import ast
import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

from dltoolkit import config, display, lazy
from dltoolkit.errors import UserError, did_you_mean, root_cause
from dltoolkit.files import user_path

PACKAGE = "dltoolkit.recipes"


def names() -> dict[str, Path]:
    """Return the files of the installed recipes by name, such as ``image-classifier``, in alphabetical order."""
    folder = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0])
    files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return {path.stem.replace("_", "-"): path for path in files}


def is_file(recipe: str) -> bool:
    """Return whether ``recipe`` is the path of a file, not the name of an installed recipe."""
    return recipe.endswith(".py")


def train_command(path: Path) -> str:
    """Return the command that trains with a recipe file, from the current folder."""
    return f"dltoolkit train {display.quote(path if len(path.parts) > 1 else f'./{path}')}"


def summary(path: Path) -> str:
    """Return the first line of a recipe's docstring without importing the recipe."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def load(recipe: str) -> ModuleType:
    """Import a recipe by name (``image-classifier`` or ``image_classifier``) or by file (``./mine.py``).

    The name is one that the user has given: a file is executed.

    Raises:
        UserError: If there is no such recipe, or the file cannot be imported, or lacks ``Config`` or ``train``.
    """
    if not is_file(recipe):
        return _import_installed(_installed(recipe, ", or give a .py file"))
    path = user_path(recipe).resolve()
    if not os.path.isfile(path):
        raise UserError(
            f"There is no recipe file {recipe}; 'dltoolkit copy image-classifier .' makes one to start from."
        )
    if lazy.source_imports_keras(path.read_text("utf-8", "replace")):
        lazy.import_tensorflow()  # which hides its startup messages
    module_name = f"dltoolkit_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses looks up the module of a class there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f" in line {error.lineno}" if error.lineno else ""
        raise UserError(f"{recipe} is not valid Python: {error.msg}{place}.") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # which the code of the file raises
        reason = f"{type(error).__name__}: {root_cause(error)}"
        raise UserError(f"{recipe} cannot be imported ({reason}): correct it; --debug shows the traceback.") from error
    check(module, recipe)
    return module


def check(module: ModuleType, name: str) -> None:
    """Raise a UserError that calls a module ``name`` if it is not a recipe."""
    missing = [attribute for attribute in ("Config", "train") if not hasattr(module, attribute)]
    if missing:
        raise UserError(f"{name} is not a recipe, because it does not define {' and '.join(missing)}.")
    if not (isinstance(module.Config, type) and issubclass(module.Config, config.RunConfig) and callable(module.train)):
        raise UserError(f"{name} is not a recipe: Config must be a subclass of RunConfig, and train a function.")


def installed(name: str) -> ModuleType:
    """Import an installed recipe by its exact name, one of :func:`names`."""
    return _import_installed(names()[name])


def of_file(path: Path) -> ModuleType:
    """Return the module of a recipe file that this process executes; the file is imported only if it is not yet."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).name == path.name and Path(file).resolve() == path.resolve():
            return module
    return load(str(path))


def own_file(module: ModuleType) -> Path | None:
    """Return the file of a recipe's module, or None if the recipe is an installed one or has no file."""
    file = getattr(module, "__file__", None)
    path = None if file is None else Path(file).resolve()
    return None if path in {installed.resolve() for installed in names().values()} else path


def _import_installed(path: Path) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{path.stem}")


def copy(recipe: str, folder: str | Path) -> Path:
    """Copy the file of a recipe into ``folder`` and return its path.

    Raises:
        UserError: If there is no such recipe, or the file exists already or cannot be written.
    """
    source = _installed(recipe)
    folder = user_path(folder)
    target = folder / source.name
    if os.path.lexists(target):
        raise UserError(f"{target} exists already; name another folder or move it away.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except FileExistsError:
        raise UserError(f"{folder} is not a folder: name one.") from None
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}.") from None
    return target


def _installed(recipe: str, alternative: str = "") -> Path:
    """Return the file of an installed recipe; underscores and capitals in its name do not matter."""
    files, name = names(), recipe.replace("_", "-").lower()
    if name not in files:
        hint = did_you_mean(name, files)
        raise UserError(f"There is no recipe '{recipe}'; choose from {', '.join(files)}{alternative}.{hint}")
    return files[name]
