"""Every way to install gives ``dltoolkit`` and ``dltoolkit.recipes``, and nothing called ``recipes``, from anywhere."""

import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what the package is built from, as a git repository, so that building leaves no traces here."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("dltoolkit", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture
def environment(tmp_path):
    """A clean environment in which only this one's installed dependencies are in sight, not its dltoolkit."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    place = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # A folder named in a .pth file is searched, but the .pth files in it, editable installs among them, are not run.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (place / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return python


def install(python: Path, *what: str) -> None:
    words = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", *what]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def elsewhere(python: Path, folder: Path, *words: str) -> str:
    done = subprocess.run([str(python), *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_trains_in_a_clean_environment(source, environment, tmp_path):
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(words, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    install(environment, str(wheel))
    place = elsewhere(
        environment, tmp_path, "-c", "from dltoolkit.recipes import image_classifier as i; print(i.__file__)"
    )
    assert place.startswith(str(tmp_path / "venv")), "the wheel's own code must be what runs"
    words = ["train", "image-classifier", "--epochs", "1", "--limit", "100", "--model", "mlp"]
    out = elsewhere(environment, tmp_path, "-m", "dltoolkit", *words)
    assert "test accuracy" in out
    assert (tmp_path / "saved_models" / "image-classifier" / "digits-1" / "report.html").exists()
    top_level = {path.name for path in Path(place.strip()).parents[2].iterdir()}
    assert "recipes" not in top_level


@pytest.mark.parametrize("way", ["editable", "git"])
def test_editable_and_git_installs_work_from_any_folder(source, environment, tmp_path, way):
    install(environment, *(["-e", str(source)] if way == "editable" else [f"git+file://{source}"]))
    command = str(environment.with_name("dltoolkit"))
    out = subprocess.run([command, "list", "recipes"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "image-classifier" in out
    code = "from dltoolkit.recipes import image_classifier; print(image_classifier.Config().model)"
    assert elsewhere(environment, tmp_path, "-c", code).strip() == "resnet"
