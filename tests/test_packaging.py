"""Every way to install provides ``dltoolkit`` and ``dltoolkit.recipes`` in any folder, no top-level ``recipes``."""

import json
import shutil
import site
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Copy what the package is built from into a git repository, so that building leaves no files here."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("dltoolkit", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture
def environment(tmp_path):
    """Make a virtual environment that sees the installed dependencies, but not the installed dltoolkit."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, tmp_path, "-c", code).strip())
    # Python searches the folders that a .pth file names, but does not run the .pth files in them (editable installs).
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return python


def run(program: Path | str, folder: Path, *words: str) -> str:
    done = subprocess.run([str(program), *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(python: Path, folder: Path, *what: str) -> None:
    pip = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-build-isolation"]
    run(sys.executable, folder, *pip, *what)


@pytest.mark.slow
def test_wheel_trains_in_a_clean_environment(source, environment, tmp_path):
    wheel_options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    run(sys.executable, tmp_path, "-m", "pip", "wheel", *wheel_options, str(source))
    (wheel,) = tmp_path.glob("*.whl")
    install(environment, tmp_path, str(wheel))
    code = "from dltoolkit.recipes import image_classifier; print(image_classifier.__file__)"
    recipe_file = Path(run(environment, tmp_path, "-c", code).strip())
    assert recipe_file.is_relative_to(tmp_path / "venv"), "the recipe must come from the wheel"
    words = ["train", "image-classifier", "--epochs", "1", "--limit", "100", "--model", "mlp"]
    assert "test accuracy" in run(environment, tmp_path, "-m", "dltoolkit", *words)
    assert (tmp_path / "saved_models" / "image-classifier" / "digits-1" / "report.html").exists()
    assert not (recipe_file.parents[2] / "recipes").exists()


@pytest.mark.parametrize("way", ["editable", "git"])
def test_editable_and_git_installs_work_from_any_folder(source, environment, tmp_path, way):
    install(environment, tmp_path, *(["-e", str(source)] if way == "editable" else [f"git+file://{source}"]))
    command = environment.with_name("dltoolkit")
    assert "image-classifier" in run(command, tmp_path, "list", "recipes")
    code = "from dltoolkit.recipes import image_classifier; print(image_classifier.Config().model)"
    assert run(environment, tmp_path, "-c", code).strip() == "resnet"


def test_pyproject_lists_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "dltoolkit").rglob("__init__.py")}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | {"dltoolkit.recipes"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}], 0, "1 of 2 packages checked"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}], 1, "CVE-1, fixed in 2"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": []}]}], 0, "CVE-1, not fixed yet"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "not checked"),
        (None, 0, "not checked"),
    ],
    ids=["none known", "fixed", "not fixed", "no data", "no report"],
)
def test_audit_fails_only_for_a_vulnerability_that_is_fixed(tmp_path, packages, code, said):
    report = tmp_path / "audit.json"
    if packages is not None:
        report.write_text(json.dumps({"dependencies": packages, "fixes": []}))
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "audit.py"), report], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
