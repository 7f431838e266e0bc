"""The block of rows that says, before training, what was understood."""

from types import SimpleNamespace

import pytest

from dltoolkit import plan
from dltoolkit.formatting import counted
from dltoolkit.training import announcement
from dltoolkit.training.time_budget import TimeBudget


def test_render_aligns_and_wraps_at_80_columns():
    rows = [("Data", "flowers (folder)"), ("Classes", "3: " + ", ".join(["a long class name 12"] * 6)), ("Empty", "")]
    lines = plan.render(rows).splitlines()
    assert lines[0] == "Data     flowers (folder)"
    assert lines[1].startswith("Classes  3: a long class name 12, ")
    assert all(line.startswith(" " * 9) for line in lines[2:])
    assert len(lines) == 3, "rows without a value are left out"
    assert max(map(len, lines)) <= 80


def test_render_fits_long_paths_and_shows_control_characters():
    lines = plan.render([("Data", "/data/" + "x" * 100), ("Columns", "label from 'a\x1b[2J\nb'")]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "Columns  label from 'a\\x1b[2J\\nb'"


def test_render_uses_the_width_and_never_breaks_what_is_copied():
    rows = [("result", "word " * 30), ("use it", "dltoolkit predict " + "x" * 60 + " INPUT...")]
    for width in (40, 80, 120):
        *result, command = plan.render(rows, width=width, unbroken=("use it",)).splitlines()
        assert max(map(len, result)) <= width < max(map(len, result)) + 5
        assert command == f"use it  {rows[1][1]}"


def test_announce_stores_and_prints_the_rows(capfd):
    updates = {}
    run = SimpleNamespace(writes=True, update=lambda **fields: updates.update(fields))
    plan.announce(run, [("Data", "digits"), ("Columns", "")])
    assert updates == {"plan": {"summary": [["Data", "digits"]]}}
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "Data  digits\n")
    run.writes = False
    plan.announce(run, [("Data", "digits")])
    assert capfd.readouterr().err == "", "only the chief prints"


def test_evaluation_row_says_whether_it_takes_longer_than_training():
    evaluation = plan.Evaluation("270 test images", lambda model: 42.0)
    assert evaluation.row(None, None) == ("Evaluation", "about 40 s: 270 test images")
    assert evaluation.row(None, 60.0) == ("Evaluation", "about 40 s: 270 test images")
    assert evaluation.row(None, 30.0) == ("Evaluation", "about 40 s, longer than training: 270 test images")
    assert plan.Evaluation("270 test images").row(None, 30.0) == ("Evaluation", "270 test images")


def test_counted_puts_a_single_thing_in_the_singular():
    assert [counted(n, "test image") for n in (0, 1, 1200)] == ["0 test images", "1 test image", "1,200 test images"]


def _plan_of_a_training(
    epochs: int | None, *, max_steps: int | None = None, patience: int = 0, few_steps: int = 50
) -> dict:
    """Return the plan of a training with one step per epoch."""
    shown = []
    device = {"kind": "cpu", "replicas": 1, "workers": 1, "precision": "float32", "xla": False}
    info = {"model": {"name": "mlp", "parameters": 10}, "device": device, "plan": {"batch_size": 1}}
    run = SimpleNamespace(
        info=info, path="runs/a", writes=True, update=lambda plan: shown.append(dict(plan["summary"]))
    )
    config = SimpleNamespace(optimizer="adam", patience=patience, epochs=epochs, max_time=None)
    spec = SimpleNamespace(
        summary=[("Data", "digits")],
        evaluation=None,
        monitor="validation_loss",
        max_steps=max_steps,
        few_steps=few_steps,
    )
    announcement.announce(run, config, spec, TimeBudget(1, epochs, None, 0.0, max_steps=max_steps), 1, None)
    return shown[0]


@pytest.mark.parametrize(
    ("epochs", "patience", "length", "selection"),
    [
        (1, 1, "1 epoch of 1 step of 1 example, adam", "stops after 1 epoch"),
        (4, 2, "4 epochs of 1 step", "after 2 epochs"),
    ],
)
def test_plan_of_a_training_has_singulars_and_plurals(epochs, patience, length, selection):
    shown = _plan_of_a_training(epochs, patience=patience)
    assert shown["Training"].startswith(length)
    assert selection in shown["Selection"]
    assert "Time" not in shown, "printed once steps have been measured, which short trainings never do"


@pytest.mark.parametrize(
    ("epochs", "max_steps", "length", "warning"),
    [
        (
            4,
            None,
            "4 epochs of 1 step of",
            "only 4 steps, in which a model hardly learns: reduce batch_size or raise epochs",
        ),
        (50, None, "50 epochs of 1 step of", None),
        (None, 30, "30 steps in epochs of 1 step of", "only 30 steps, in which a model hardly learns: raise steps"),
        (None, 60, "60 steps in epochs of 1 step of", None),
    ],
)
def test_plan_counts_steps_and_warns_of_few(epochs, max_steps, length, warning):
    shown = _plan_of_a_training(epochs, max_steps=max_steps)
    assert shown["Training"].startswith(length)
    assert shown.get("Warning", "").startswith(warning or "")
    assert ("Warning" in shown) == bool(warning)
    assert "Warning" not in _plan_of_a_training(epochs, max_steps=max_steps, few_steps=0)


def test_settings_names_what_is_on():
    assert plan.settings({"flip": True, "shift": 2, "color_jitter": 0.25, "mixup": 0.0}) == (
        "flip, shift 2, color jitter 0.25"
    )
    assert plan.settings({"flip": False}) == plan.settings({}) == "none"
