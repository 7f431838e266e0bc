# ruff: noqa: F811  (a fixture that is imported is a parameter of the tests)
"""The Python snippets of README.md and docs/python.md run where a newcomer stands: in the root of a clone."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from test_packaging import environment, install, run, source  # noqa: F401

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/python.md")
RUN_SNIPPETS = """
import json, sys
for snippets in json.load(open(sys.argv[1])):
    namespace = {"__name__": "__main__"}  # of all snippets of a document
    for snippet in snippets:
        exec(compile(snippet, snippet[:60], "exec"), namespace)
import dltoolkit
print("from", dltoolkit.__file__)
"""


def snippets(document: str) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks, document
    return blocks


def test_recipes_are_found_in_the_root_of_a_clone_without_any_installation(source, tmp_path):
    code = "from dltoolkit import recipe, recipes; print(recipes.__path__[0], *recipe.names(), *dir(recipes))"
    place, *names = run(sys.executable, source, "-S", "-c", code).split()
    assert Path(place) == source.resolve() / "recipes"
    assert {"image-classifier", "image_classifier"} <= set(names)


def test_an_installed_package_has_its_own_recipes(source, tmp_path):
    shutil.copytree(source / "dltoolkit", tmp_path / "dltoolkit")
    shutil.copytree(source / "recipes", tmp_path / "dltoolkit" / "recipes")
    shutil.copytree(source / "recipes", tmp_path / "recipes")  # of somebody else
    code = "import sys; from dltoolkit import recipes; print(recipes.__path__[0], len(sys.meta_path))"
    place, finders = run(sys.executable, tmp_path, "-S", "-c", code).split()
    assert Path(place) == tmp_path / "dltoolkit" / "recipes"
    assert finders == run(sys.executable, tmp_path, "-S", "-c", "import sys; print(len(sys.meta_path))").strip()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_snippets_are_short_and_valid(document):
    for snippet in snippets(document):
        compile(snippet, document, "exec")


@pytest.mark.slow
def test_snippets_run_in_the_root_of_a_clone_after_the_quick_start(source, environment, tmp_path):
    install(environment, source, ".")
    file = tmp_path / "snippets.json"
    file.write_text(json.dumps([snippets(document) for document in DOCUMENTS]))
    place = run(environment, source, "-c", RUN_SNIPPETS, str(file)).splitlines()[-1]
    assert place == f"from {source / 'dltoolkit' / '__init__.py'}", "Python imports what is in the root of the clone"
    assert (source / "saved_models" / "image-classifier" / "arrays-1" / "report.html").exists()
