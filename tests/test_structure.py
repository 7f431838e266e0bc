"""The structure: imports point down without circles, help stays fast, all recipes have the same skeleton and words."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dltoolkit
from dltoolkit import config, recipe

ROOT = Path(__file__).parents[1]
# From the ground up: a room imports only rooms of lower floors. Modules of the ground floor may import each other.
GROUND = {
    *(
        "answers",
        "cluster",
        "config",
        "config_file",
        "data_object",
        "display",
        "errors",
        "files",
        "formatting",
        "interrupt",
        "keras_settings",
        "lazy",
        "lines",
        "machine",
        "memory",
        "network",
        "npz",
        "option_names",
        "option_values",
    ),
    *("plan", "progress", "recipe", "run_files", "run_schema", "run_session", "streams", "strict_json"),
}
FLOORS = [
    *(GROUND, {"data"}, {"models"}, {"run"}, {"saved_runs"}, {"training"}, {"evaluation"}, {"finetuning"}, {"report"}),
    *({"explanation"}, {"export"}, {"loading"}),
    *({"recipes"}, {"cli"}, {"__main__"}),
]
MAX_LINES, MAX_RECIPE_LINES = 400, 200
# Expressions that name a config or a part of it, by their last identifier
CONFIG_NAMES = {"config", "_config", "given", "options", "read", "resolved", "settings", "split", "weights_config"}
# Words of a dialect that this project once had, and British spellings; quoted words, such as column names, may stay
DIALECT = (
    r"\bpictures?\b(?!\")",
    r"\b(found|said|how|wanted|known|whole|kept|chosen) = ",
    r"\bsuited\b",
    r"\bconclud(e|ed|es)\b",
    r"\blopsided\b",
    r"\bforet(ell|old)\b",
    r"\blearn(s|ed|t)? by heart\b",
    r"\bgist\b|\bBadInput\b|\bRelieved\b",
    r"\bletters=",
    r"\bmirroring_suits\b",
    r"\b(anew|heed|heeds|beside|whatever becomes)\b",
    r"\bso many\b",
    r"\w*(labelled|colour|normalis|initialis|recognis|regularis|optimis(?!ti)|favour|catalogue|memoris)\w*",
)


def paths() -> list[Path]:
    return [*sorted((ROOT / "recipes").glob("*.py")), *sorted((ROOT / "dltoolkit").rglob("*.py"))]


@functools.cache
def modules() -> dict[str, Path]:
    """The files by the full names of their modules; a package is its ``__init__.py``."""
    named = {}
    for path in paths():
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = ("dltoolkit", *parts) if parts[0] == "recipes" else parts
        named[".".join(parts).removesuffix(".__init__")] = path
    return named


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """The modules that a module imports anywhere, lazily and for type checking included."""
    bound, imported = {}, set()  # names in the module that mean a module; modules
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dltoolkit":
                    bound[alias.asname or "dltoolkit"] = alias.name if alias.asname else "dltoolkit"
                    imported.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dltoolkit":
            for alias in node.names:
                full_name = f"{node.module}.{alias.name}"
                if full_name in modules():
                    bound[alias.asname or alias.name] = full_name
                    imported.add(full_name)
                else:
                    imported.add(node.module)
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)) and chain[0] in bound:
            full_name = bound[chain[0]]
            for attribute in chain[1:]:
                if full_name == "dltoolkit" and attribute in dltoolkit._PUBLIC:
                    full_name = f"dltoolkit.{dltoolkit._PUBLIC[attribute]}"
                    break
                if f"{full_name}.{attribute}" not in modules():
                    break
                full_name = f"{full_name}.{attribute}"
            imported.add(full_name)
    return frozenset(imported & modules().keys() - {module, "dltoolkit"})


def _chain(node: ast.expr) -> list[str]:
    """The names of ``a.b.c``, or an empty list for another expression."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def test_imports_point_down():
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    rooms = {room_of(module) for module in modules()} - {""}
    assert rooms == floor_of.keys()
    upward = []
    for module in modules():
        room = room_of(module)
        for other in map(room_of, imports_of(module)):
            within = room in ("", other) or {room, other} <= GROUND
            if not within and floor_of[other] >= floor_of[room]:
                upward.append(f"{module} imports {other}")
    assert not upward


def test_imports_make_no_circles():
    finished, circles = set(), []

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in finished:
            for other in sorted(imports_of(module)):
                visit(other, (*path, module))
            finished.add(module)

    for module in modules():
        visit(module, ())
    assert not circles


def test_recipes_do_not_import_or_load_each_other():
    may_load = {
        "dltoolkit.recipe",
        "dltoolkit.run",
        "dltoolkit.saved_runs",
    }  # which import the recipe that a user or a run names
    for module in modules().keys() - may_load:
        if room_of(module) in ("cli", ""):
            continue
        assert not any(room_of(other) == "recipes" for other in imports_of(module)), module
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Attribute):
                assert _chain(node)[-2:] not in (["recipe", "load"], ["run", "recipe"]), f"{module}:{node.lineno}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith("dltoolkit.recipes"), f"{module}:{node.lineno}"


@pytest.mark.slow
def test_training_imports_no_other_recipe(tmp_path):
    code = (
        "import sys\n"
        "from dltoolkit.recipes import fine_tune\n"
        "options = {'limit': 200, 'epochs': 1, 'batch_size': 32, 'out_dir': sys.argv[1]}\n"
        "run = fine_tune.train(fine_tune.Config(data='digits', **options))\n"
        "run.evaluate()\n"
        "print(sorted(name for name in sys.modules if name.startswith('dltoolkit.recipes.')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['dltoolkit.recipes.fine_tune']"


def private_parts(module: str) -> Iterator[str]:
    """Yield the private modules of Keras and TensorFlow and the private attributes of other projects that are used."""
    imported = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            imported |= {name.split(".")[0] for name in names}
            if any(re.search(r"\bsrc\b|tensorflow\.python", name) for name in names):
                yield f"{module}:{node.lineno} imports {names}"
    if not imported & {"keras", "keras_hub", "tensorflow"}:
        return
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute):
            private = re.match(r"_[a-z]", node.attr) and node.attr not in own_attributes()
            if private or node.attr == "src":
                yield f"{module}:{node.lineno} uses .{node.attr}"


@functools.cache
def own_attributes() -> set[str]:
    """The private names that the project defines: functions, methods, fields, module variables and attributes."""
    names = set()
    for module in modules().keys() - {"dltoolkit.models.keras_internals"}:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return names


def test_private_parts_of_keras_are_used_in_one_module_only():
    others = modules().keys() - {"dltoolkit.models.keras_internals"}
    assert not [access for module in sorted(others) for access in private_parts(module)]


def test_files_are_short_and_named_for_their_content():
    long = []
    for path in paths():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > (MAX_RECIPE_LINES if path.parent.name == "recipes" else MAX_LINES):
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
    assert not long


def test_words_are_those_of_the_field():
    files = [
        path for folder in ("dltoolkit", "recipes", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    hits = []
    for path in files:
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            hits += [
                f"{path.relative_to(ROOT)}:{number}: {hit[0]}" for word in DIALECT if (hit := re.search(word, line))
            ]
    assert not hits, f"{len(hits)} words"


def test_every_option_is_read():
    read = set()
    for module in modules():
        strings = False
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                chain = _chain(node)
                if len(chain) > 1 and chain[-2] in CONFIG_NAMES:
                    read.add(node.attr)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                strings = (
                    strings or _chain(node.args[0])[-1:] == ["config"] or getattr(node.args[0], "id", "") == "config"
                )
        if strings:  # getattr(config, name) with names from a table in the same module
            read |= {node.value for node in ast.walk(tree_of(module)) if isinstance(node, ast.Constant)}
    for name in recipe.names():
        options = config.options(recipe.load(name).Config)
        unread = options.keys() - read - {"name", "out_dir"}  # Run.create reads these two
        assert not unread, f"{name} never reads {', '.join(sorted(unread))}"


def facts() -> set[str]:
    """The names of the facts that some module passes to ``refuse_ignored``."""
    names = set()
    for module in modules():
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "refuse_ignored":
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
                unpacked = [keyword.value for keyword in node.keywords if keyword.arg is None]
                names |= {key.value for value in unpacked if isinstance(value, ast.Dict) for key in value.keys}
    return names


@pytest.mark.parametrize("name", recipe.names())
def test_options_are_declared_well(name):
    options = config.options(recipe.load(name).Config)
    for option in options.values():
        assert option.group != "other", f"{option.flag} has no group"
        assert re.match(r"[A-Z]", option.help), f"{option.flag}: {option.help}"
        assert not option.help.endswith("."), f"{option.flag}: {option.help}"
        assert len(option.help) <= 190, f"{option.flag}: {option.help}"
        for other, allowed in option.applies_to.items():
            assert other in options or other in facts(), f"{option.flag} depends on {other}, which is no option"
            if other in options and options[other].choices:
                switch = (True, False) if options[other].kind is bool else ()
                assert set(allowed) <= {*options[other].choices, *switch, None}, option.flag


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["list"], ["train", "--help"], *(["train", name, "--help"] for name in recipe.names())],
    ids=" ".join,
)
def test_help_imports_nothing_heavy_and_fits_80_columns(words, tmp_path):
    code = (
        "import sys; from dltoolkit import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {"COLUMNS": "80", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if words != ["list"]:
        assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_has_the_same_skeleton(name):
    module = recipe.load(name)
    for part in ("Config", "build_data", "build_model", "train", "evaluate"):
        assert hasattr(module, part), part
    assert hasattr(module, "predict") or hasattr(module, "generate")
    assert f"\n    dltoolkit train {name} " in module.__doc__, "the docstring holds the run command"
    assert "Measured on" in module.__doc__, "the docstring holds the measured result"
    assert module.Config()
