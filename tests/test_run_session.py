"""Tests of how a run records errors and signals that end its training."""

import errno

import pytest
from toy_training import FILE

import dltoolkit
from dltoolkit import interrupt, recipe
from dltoolkit.errors import UserError
from dltoolkit.files import WriteError
from dltoolkit.run import Run


@pytest.fixture
def run(tmp_path):
    toy = recipe.load(str(FILE))
    return Run.create(str(FILE), toy.Config(out_dir=str(tmp_path)), "toy")


@pytest.mark.parametrize(
    ("error", "begin"),
    [
        (MemoryError(), "Out of memory: "),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: "),
        (WriteError("Cannot write x."), "Cannot write x. "),
    ],
)
def test_an_error_of_the_machine_names_the_command_that_resumes(run, error, begin):
    with pytest.raises(UserError) as raised, run.session():
        run.update(state="running")
        raise error
    assert str(raised.value).startswith(begin)
    assert str(raised.value).endswith(f"Afterwards, resume with: {run.resume_command}")
    info = dltoolkit.load(run.path).info
    assert (info["state"], info["error"]) == ("failed", str(raised.value))


def test_an_interrupt_before_training_of_a_resumed_run_names_the_command_that_resumes(run):
    again = dltoolkit.load(run.path, recipe=recipe.load(str(FILE)))
    with pytest.raises(interrupt.Interrupted) as stopped, again.session():
        raise interrupt.Interrupted(1)
    assert stopped.value.resume_command == again.resume_command
    assert run.path.exists()


def test_an_interrupt_before_training_of_a_new_run_removes_it(run):
    with pytest.raises(interrupt.Interrupted) as stopped, run.session():
        raise interrupt.Interrupted(1)
    assert not hasattr(stopped.value, "resume_command")
    assert not run.path.exists()
