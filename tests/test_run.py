"""Tests of run directories: names, atomic files, states, and damaged or foreign contents."""

import copy
import errno
import fcntl
import json
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import pytest
from conftest import run_command

import dltoolkit
from dltoolkit import files, recipe
from dltoolkit import run as run_module
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.finetuning import backbone
from dltoolkit.interrupt import Interrupted
from dltoolkit.run import Run

FILE = str(recipe.names()["image-classifier"])


def file_names(run: Run) -> set[str]:
    return {path.name for path in run.path.iterdir()} - {".lock"}


@pytest.fixture
def create(tmp_path):
    def make(data_name="digits", **options):
        return Run.create(FILE, RunConfig(out_dir=str(tmp_path / "runs"), **options), data_name)

    return make


def test_create_numbers_and_names_runs(create, tmp_path):
    assert [create().path.name for _ in range(2)] == ["digits-1", "digits-2"]
    assert create("my flowers/2024!").path.name == "my-flowers-2024-1"
    assert create(name="best.one").path == tmp_path / "runs" / "image-classifier" / "best.one"
    with pytest.raises(UserError, match="already exists"):
        create(name="best.one")
    for bad in ("../up", "a/b", "", "-x"):
        with pytest.raises(UserError, match="not a valid name"):
            create(name=bad)


def test_create_writes_run_json_first(create):
    run = create(seed=7)
    assert file_names(run) == {"run.json"}
    info = json.loads((run.path / "run.json").read_text())
    assert (info["recipe"], info["state"], info["config"]["seed"]) == ("image-classifier", "starting", 7)
    assert info["format"] == run_module.FORMAT
    assert info["versions"]["keras"]


def test_session_removes_a_run_that_fails_before_training(create):
    run = create()
    with pytest.raises(UserError, match="no images"), run.session():
        raise UserError("no images")
    assert not run.path.exists()


def test_session_restores_the_dtype_policy(create):
    keras.config.set_dtype_policy("float32")
    with create().session():
        keras.config.set_dtype_policy("mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("written", range(3))
def test_describe_data_completes_what_a_killed_process_left(create, monkeypatch, written):
    run, write, count = create(), Run.write, iter(range(9))

    def write_until_killed(self, *content):
        if next(count) == written:
            raise SystemExit
        return write(self, *content)

    arguments = {"fingerprint": "f", "source": "toys", "classes": ["a", "b"]}, [("x.png", "is damaged")]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", write_until_killed)
        with pytest.raises(SystemExit):
            run.describe_data(*arguments)
    again = dltoolkit.load(run.path)
    again.describe_data(*arguments)
    assert json.loads((run.path / "labels.json").read_text()) == ["a", "b"]
    assert "x.png" in (run.path / "findings.csv").read_text()
    assert dltoolkit.load(run.path).info["data"]["source"] == "toys"
    (run.path / "labels.json").write_text('["a", 3]')
    again.describe_data(*arguments)
    assert json.loads((run.path / "labels.json").read_text()) == ["a", "b"], "a resumed run restores its files"


def test_session_records_a_failure_in_training(create):
    run = create()
    with pytest.raises(RuntimeError), run.session():
        run.update(state="running")
        raise RuntimeError("the loss became NaN")
    again = dltoolkit.load(run.path)
    assert (again.info["state"], again.info["error"]) == ("failed", "the loss became NaN")


def test_session_records_an_interrupt_with_the_resume_command(create):
    run = create()
    with pytest.raises(Interrupted) as caught, run.session():
        run.update(state="running")
        raise Interrupted(15)
    assert caught.value.resume_command == f"dltoolkit resume {run.path}"
    assert dltoolkit.load(run.path).info["state"] == "interrupted"


def test_numbered_names_are_unique_across_recipes(create, tmp_path):
    (tmp_path / "runs" / "fine-tune" / "digits-1").mkdir(parents=True)
    assert [create().path.name for _ in range(2)] == ["digits-2", "digits-3"]
    assert dltoolkit.load("digits-2", tmp_path / "runs").path.parent.name == "image-classifier"
    assert create(name="digits-1").path.name == "digits-1", "a given name may repeat that of another recipe"


def test_load_takes_paths_names_and_latest(create, tmp_path):
    one, two = create(), create("flowers")
    root = tmp_path / "runs"
    for name in (one.path, "digits-1", "image-classifier/digits-1"):
        assert dltoolkit.load(name, root).path.samefile(one.path)
    assert {run.path for run in dltoolkit.runs(root)} == {one.path, two.path}
    two.update(created="2999-01-01T00:00:00+00:00")
    assert dltoolkit.load("latest", root).path == two.path
    with pytest.raises(UserError, match="Did you mean 'flowers-1'"):
        dltoolkit.load("flower-1", root)
    with pytest.raises(UserError, match="no runs in"):
        dltoolkit.load("latest", tmp_path / "empty")
    with pytest.raises(UserError, match="is not a run directory"):
        dltoolkit.load(tmp_path)


def test_load_refuses_an_ambiguous_name(create, tmp_path):
    first = create()
    other = tmp_path / "runs" / "fine-tune" / first.path.name
    other.mkdir(parents=True)
    (other / "run.json").write_text((first.path / "run.json").read_text())
    with pytest.raises(UserError, match="image-classifier/digits-1"):
        dltoolkit.load("digits-1", tmp_path / "runs")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": 3}'])
def test_load_names_a_damaged_run_json(create, content):
    run = create()
    (run.path / "run.json").write_text(content)
    with pytest.raises(UserError, match="damaged"):
        dltoolkit.load(run.path)


@pytest.mark.parametrize(("changes", "actual"), [({"format": 1}, "has format 1"), ({}, "has no format number")])
def test_load_refuses_other_formats(create, tmp_path, changes, actual):
    run = create()
    info = {key: value for key, value in run.info.items() if key != "format"} | changes
    (run.path / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=f"{actual}, but this version reads only format 2: train a new run"):
        dltoolkit.load(run.path)
    with pytest.raises(UserError, match=actual):
        dltoolkit.load(run.path.name, tmp_path / "runs")
    with pytest.raises(UserError, match=actual):
        backbone.resolve(run.path.name, out_dir=str(tmp_path / "runs"))
    assert dltoolkit.runs(tmp_path / "runs") == []


def test_exclusive_lock_refuses_a_symbolic_link(create, tmp_path):
    run, victim = create(), tmp_path / "victim"
    victim.write_text("precious")
    (run.path / ".lock").unlink()
    (run.path / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="symbolic link"), dltoolkit.load(run.path).exclusive_lock():
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("module", ["fcntl", "resource"])
def test_runs_can_be_read_without_the_modules_that_windows_lacks(create, module):
    run = create()
    code = f"""
        import sys
        sys.modules[{module!r}] = None
        import dltoolkit, dltoolkit.cli.app, dltoolkit.recipes.image_classifier
        print(dltoolkit.load({str(run.path)!r}).info["state"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout == "starting\n", done.stderr


def test_history_names_a_damaged_file(create):
    run = create()
    (run.path / "history.csv").write_text("epoch,loss\n1,abc\n")
    with pytest.raises(UserError, match="damaged"):
        _ = run.history


def test_history_reads_what_write_rows_writes(create):
    run = create()
    rows = [{"epoch": 1, "loss": 0.5, "seconds": 1.5}, {"epoch": 2, "loss": 0.25, "seconds": 1.0}]
    run.write_rows("history.csv", rows)
    assert run.history == rows


def test_update_keeps_the_old_file_on_a_full_disk(create):
    """The kernel refuses files above a limit, as it would on a full disk."""
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
    assert file_names(run) == {"run.json"}


def test_create_names_an_out_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="another out_dir"):
        Run.create(FILE, RunConfig(out_dir=str(tmp_path / "file")), "digits")


def test_create_names_an_out_dir_without_permission(tmp_path, unprivileged_user):
    with pytest.raises(UserError, match="Permission denied; choose another out_dir"):
        Run.create(FILE, RunConfig(out_dir=str(tmp_path / "runs")), "digits")


def write_recipe(path):
    """Write a recipe file that says when it is executed, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"open({str(path.with_suffix('.executed'))!r}, 'w').close()\n"
        "from dltoolkit.config import RunConfig as Config\n"
        "def train(config): ...\n"
        "def predict(run, inputs): return 'mine'\n"
    )
    return path


OWN_RECIPE = (
    r"is not a run of an installed recipe: .* with '--recipe ./mine.py' .* load\(path, recipe=module\) in Python"
)


@pytest.mark.parametrize(
    "spelling",
    ["{file}", "{run}/evil.py", "{run}/../../elsewhere/evil.py", "{run}/link.py", "evil.py", "image_classifier.py", 3],
)
@pytest.mark.parametrize("field", ["recipe", "recipe_file"])
def test_recipe_is_never_a_file_that_run_json_names(create, tmp_path, spelling, field, monkeypatch):
    run, file = create(), write_recipe(tmp_path / "elsewhere" / "evil.py")
    write_recipe(run.path / "evil.py")
    if "link" in str(spelling):
        (run.path / "link.py").symlink_to(file)
    monkeypatch.chdir(file.parent)
    value = spelling if isinstance(spelling, int) else spelling.format(file=file, run=run.path)
    run.update(**{field: value})
    with pytest.raises(UserError, match=f"{OWN_RECIPE}|is damaged|symbolic link"):
        _ = dltoolkit.load(run.path).recipe
    with pytest.raises(UserError, match=f"{OWN_RECIPE}|is damaged|symbolic link"):
        dltoolkit.load(run.path).predict("x.png")
    assert not list(tmp_path.rglob("*.executed"))


@pytest.mark.parametrize("verb", ["predict", "evaluate", "generate", "resume"])
def test_command_line_executes_only_the_recipe_file_of_its_own_option(create, tmp_path, verb, capfd):
    run = create()
    evil, mine = (write_recipe(tmp_path / name) for name in ("evil.py", "mine.py"))
    run.update(recipe_file=str(evil), recipe="evil")
    words = [verb, str(run.path), *(["x.png"] if verb == "predict" else [])]
    code, out, err = run_command(capfd, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(OWN_RECIPE, err)
    assert not list(tmp_path.glob("*.executed"))
    run_command(capfd, *words, "--recipe", str(mine))
    assert [path.name for path in tmp_path.glob("*.executed")] == ["mine.executed"]


def test_load_takes_the_module_of_a_recipe_file(create, tmp_path):
    run, file = create(), write_recipe(tmp_path / "my recipe.py")
    run.update(recipe_file="/nowhere.py", recipe="my recipe")
    opened = dltoolkit.load(run.path, recipe=recipe.load(str(file)))
    assert opened.predict("x.png") == "mine"
    assert opened.resume_command == f"dltoolkit resume {run.path} --recipe '{file}'"
    with pytest.raises(UserError, match="is not a recipe, because it does not define Config and train"):
        dltoolkit.load(run.path, recipe=json)


def test_a_run_is_pickled_as_its_path(create, tmp_path, monkeypatch):
    run = create(name="one")
    monkeypatch.chdir(run.path.parent)
    pickled = pickle.dumps(Run(Path("one"), run.info))
    monkeypatch.chdir("/")
    for opened in (pickle.loads(pickled), copy.deepcopy(run)):
        assert (opened.path, opened.info["name"]) == (run.path, "one")
    with pytest.raises(UserError, match="is not pickled: open it in the other process with load"):
        pickle.dumps(Run(run.path, run.info, recipe_file=tmp_path / "mine.py"))


def test_model_refuses_files_with_code(create):
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


def test_exclusive_lock_is_skipped_if_the_file_system_has_no_locks(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with files.exclusive_lock(tmp_path):
        (tmp_path / "written").touch()
    assert (tmp_path / "written").exists()


def test_model_has_one_input_and_one_output_tensor(create):
    inputs = keras.Input((2,), name="image")
    run = create()
    run.save_model(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    run.update(state="finished")
    assert keras.ops.is_tensor(run.model(keras.ops.ones((1, 2))))
    assert run.model.output.shape == (None, 3)
    assert run.model.input.shape == (None, 2)


def test_a_run_without_its_data_is_named(create):
    run, data = create(), "./toys"
    run.update(config={"data": data}, state="interrupted", data={"source": data, "splits": {"test": 3}})
    message = f"{run.path} was trained on {data}, which is not here: run this in the folder where it was trained"
    for use in (lambda: dltoolkit.load(run.path).evaluate(), lambda: dltoolkit.resume(run.path, epochs=2)):
        with pytest.raises(UserError, match=re.escape(message)):
            use()
