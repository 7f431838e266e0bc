"""A run directory: named safely, never half-written, never overwriting, readable when it is not finished."""

import json
import subprocess
import sys
import textwrap

import pytest

import dltoolkit
from dltoolkit import recipe
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.interrupt import Interrupted
from dltoolkit.run import Run

FILE = str(recipe.names()["image-classifier"])


@pytest.fixture
def create(tmp_path):
    def make(data_name="digits", **options):
        return Run.create(FILE, RunConfig(out_dir=str(tmp_path / "runs"), **options), data_name)

    return make


def test_runs_are_numbered_and_named(create, tmp_path):
    assert [create().path.name for _ in range(2)] == ["digits-1", "digits-2"]
    assert create("my flowers/2024!").path.name == "my-flowers-2024-1"
    assert create(name="best.one").path == tmp_path / "runs" / "image-classifier" / "best.one"
    with pytest.raises(UserError, match="exists already"):
        create(name="best.one")
    for bad in ("../up", "a/b", "", "-x"):
        with pytest.raises(UserError, match="no name for a run"):
            create(name=bad)


def test_run_json_comes_first_and_says_what_was_asked(create):
    run = create(seed=7)
    assert [path.name for path in run.path.iterdir()] == ["run.json"]
    info = json.loads((run.path / "run.json").read_text())
    assert (info["recipe"], info["state"], info["config"]["seed"]) == ("image-classifier", "starting", 7)
    assert info["versions"]["keras"]


def test_a_failure_before_training_leaves_nothing(create):
    run = create()
    with pytest.raises(UserError, match="no pictures"), run.session():
        raise UserError("no pictures")
    assert not run.path.exists()


@pytest.mark.parametrize("written", range(3))
def test_killed_between_two_files_about_the_data(create, monkeypatch, written):
    """However many of them there are already, a run that goes on has all of them."""
    run, write, count = create(), Run.write, iter(range(9))

    def killed(self, *content):
        if next(count) == written:
            raise SystemExit
        return write(self, *content)

    about = {"fingerprint": "f", "source": "toys", "classes": ["a", "b"]}, [("x.png", "is damaged")]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", killed)
        with pytest.raises(SystemExit):
            run.describe_data(*about)
    again = dltoolkit.load(run.path)
    again.describe_data(*about)
    assert json.loads((run.path / "labels.json").read_text()) == ["a", "b"]
    assert "x.png" in (run.path / "findings.csv").read_text()
    assert dltoolkit.load(run.path).info["data"]["source"] == "toys"


def test_a_failure_in_training_is_recorded(create):
    run = create()
    with pytest.raises(RuntimeError), run.session():
        run.update(state="running")
        raise RuntimeError("the loss became NaN")
    again = dltoolkit.load(run.path)
    assert (again.info["state"], again.info["error"]) == ("failed", "the loss became NaN")


def test_an_interrupt_is_recorded_with_the_resume_command(create):
    run = create()
    with pytest.raises(Interrupted) as caught, run.session():
        run.update(state="running")
        raise Interrupted(15)
    assert caught.value.resume_command == f"dltoolkit resume {run.path}"
    assert dltoolkit.load(run.path).info["state"] == "interrupted"


def test_runs_are_found_by_path_name_and_latest(create, tmp_path):
    one, two = create(), create("flowers")
    root = tmp_path / "runs"
    for word in (one.path, "digits-1", "image-classifier/digits-1"):
        assert dltoolkit.load(word, root).path.samefile(one.path)
    assert {run.path for run in dltoolkit.runs(root)} == {one.path, two.path}
    two.update(created="2999-01-01T00:00:00+00:00")
    assert dltoolkit.load("latest", root).path == two.path
    with pytest.raises(UserError, match="Did you mean 'flowers-1'"):
        dltoolkit.load("flower-1", root)
    with pytest.raises(UserError, match="no runs in"):
        dltoolkit.load("latest", tmp_path / "empty")
    with pytest.raises(UserError, match="is no run"):
        dltoolkit.load(tmp_path)


def test_a_name_in_two_recipes_is_asked_about(create, tmp_path):
    first = create()
    other = tmp_path / "runs" / "fine-tune" / first.path.name
    other.mkdir(parents=True)
    (other / "run.json").write_text((first.path / "run.json").read_text())
    with pytest.raises(UserError, match="image-classifier/digits-1"):
        dltoolkit.load("digits-1", tmp_path / "runs")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": 3}'])
def test_a_corrupt_run_json_is_named(create, content):
    run = create()
    (run.path / "run.json").write_text(content)
    with pytest.raises(UserError, match="damaged"):
        dltoolkit.load(run.path)


def test_a_corrupt_history_is_named(create):
    run = create()
    (run.path / "history.csv").write_text("epoch,loss\n1,abc\n")
    with pytest.raises(UserError, match="damaged"):
        _ = run.history


def test_history_round_trip(create):
    run = create()
    rows = [{"epoch": 1, "loss": 0.5, "seconds": 1.5}, {"epoch": 2, "loss": 0.25, "seconds": 1.0}]
    run.write_rows("history.csv", rows)
    assert run.history == rows


def test_a_full_disk_leaves_the_old_file_whole(create, tmp_path):
    """A real failing write: the kernel refuses files above a limit."""
    run = create()
    code = f"""
        import resource, signal
        import dltoolkit
        run = dltoolkit.load({str(run.path)!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            run.update(warnings=["x" * 5000])
        except dltoolkit.UserError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert "Cannot write" in done.stdout, done.stderr
    assert dltoolkit.load(run.path).info["state"] == "starting"
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="another --out-dir"):
        Run.create(FILE, RunConfig(out_dir=str(tmp_path / "file")), "digits")


def test_a_place_without_permission_is_named(tmp_path, unprivileged_user):
    with pytest.raises(UserError, match="Permission denied; choose another --out-dir"):
        Run.create(FILE, RunConfig(out_dir=str(tmp_path / "runs")), "digits")


def test_a_run_never_executes_code_that_travels_with_it(create):
    run = create()
    (run.path / "evil.py").write_text("raise SystemExit('executed')")
    run.update(recipe_file=str(run.path / "evil.py"))
    with pytest.raises(UserError, match="not executed"):
        _ = dltoolkit.load(run.path).recipe


def test_a_model_file_that_hides_code_is_refused(create, tmp_path):
    import keras

    hostile = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    run = create()
    hostile.save(run.path / "model.keras")
    with pytest.raises(UserError, match="contains Python code"):
        _ = run.model
    (run.path / "model.keras").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="damaged or not a Keras model"):
        _ = run.model
    (run.path / "model.keras").unlink()
    with pytest.raises(UserError, match="no model yet"):
        _ = run.model
