"""The verbs that read run directories: show and compare."""

import re
import sys
from pathlib import Path

import pytest
from conftest import run_command
from dltoolkit.recipes import image_classifier, image_gan
from rich.cells import cell_len

from dltoolkit.cli import show, tables
from dltoolkit.run import Run

DATA = {
    "source": "flowers",
    "fingerprint": "f00d",
    "splits": {"train": 1000, "validation": 150, "test": 150},
    "split_origin": "predefined by folders",
    "classes": ["rose", "tulip"],
    "image_shape": [32, 32, 3],
    "resize": {"mode": "crop", "pixels_used": 0.9},
}
SCORES = {"accuracy": 0.915, "macro_f1": 0.9, "loss": 0.25}


def make_run(out_dir: Path, recipe, name: str, test: dict | None, *, data: dict = DATA, **options) -> Run:
    run = Run.create(recipe.__file__, recipe.Config(out_dir=str(out_dir), name=name, **options), name)
    run.update(data=data, state="finished" if test else "interrupted")
    if test:
        run.write_json("metrics.json", {"test": test, "baseline": {"majority": {"accuracy": 0.5, "label": "rose"}}})
        run.update(model={"name": "cnn", "parameters": 12345}, time={"train_seconds": 83.2})
    return run


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Make two finished classifiers, an interrupted one, and a GAN that has the name of the first."""
    return [
        make_run(tmp_path, image_classifier, "a", SCORES, epochs=3, max_time="90s"),
        make_run(tmp_path, image_classifier, "b", {"accuracy": 0.8, "macro_f1": 0.8, "loss": 0.5}, augment=False),
        make_run(tmp_path, image_classifier, "c", None, widths=(8, 16)),
        make_run(tmp_path, image_gan, "a", {"frechet_distance": 0.1366, "coverage": 0.82}),
    ]


def table(out: str) -> dict[str, list[str]]:
    """Return the cells of each printed row after the first, by the first."""
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    return {cells[0]: cells[1:] for cells in rows}


def test_compare_prints_scores_and_different_options(runs, capfd):
    code, out, err = run_command(capfd, "compare", *(str(run.path) for run in runs[:2]))
    assert (code, err) == (0, "")
    assert "None" not in out
    rows = table(out)
    assert rows[""] == ["a", "b"]
    assert rows["test accuracy"] == ["91.5 %", "80.0 %"]
    assert rows["test loss"] == ["0.25", "0.5"]
    assert rows["training time"] == ["1 min 23 s", "1 min 23 s"]
    assert rows["data"] == ["flowers", "flowers"]
    assert rows["--epochs"] == ["3", "–"]
    assert rows["--max-time"] == ["1m30s", "–"]
    assert rows["--augment"] == ["yes", "no"]
    assert "--seed" not in rows


def test_compare_of_an_unfinished_run_prints_dashes(runs, capfd):
    _, out, _ = run_command(capfd, "compare", *(str(runs[i].path) for i in (0, 2)))
    rows = table(out)
    assert rows["state"] == ["finished", "interrupted"]
    assert rows["test accuracy"] == ["91.5 %", "–"]
    assert rows["parameters"] == ["12,345", "–"]
    assert rows["--widths"][1] == "8,16"


def test_compare_of_different_recipes_shows_the_options_of_all_of_them(runs, capfd):
    code, out, err = run_command(capfd, "compare", *(str(runs[i].path) for i in (0, 3)))
    assert code == 0
    rows = table(out)
    assert rows[""] == ["image-classifier/a", "image-gan/a"]
    assert rows["test accuracy"] == ["91.5 %", "–"]
    assert rows["test Fréchet distance"] == ["–", "0.1366"]
    assert rows["--epochs"] == ["3", "–"], "an option of both"
    assert rows["--model"] == ["resnet", "–"], "an option of the first"
    assert rows["--architecture"] == ["–", "dcgan"], "an option of the second"
    assert not re.search("None|True|False", out)
    assert err == "The runs have no score in common.\n"


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        ({"fingerprint": "beef", "source": "trees"}, {}, "The runs were trained on different data"),
        ({"fingerprint": "beef"}, {"limit": 300}, "The runs read the data differently (--limit)"),
        ({"fingerprint": "beef"}, {"image_size": 64}, "The data have changed between the runs"),
        ({"split_origin": "split by class and content"}, {"seed": 7}, "The runs split the data differently (--seed)"),
    ],
)
def test_compare_says_why_runs_are_not_comparable(runs, capfd, tmp_path, data, options, reason):
    other = make_run(tmp_path, image_classifier, "d", {"accuracy": 0.7}, data={**DATA, **data}, **options)
    _, _, err = run_command(capfd, "compare", str(runs[0].path), str(other.path))
    assert err == f"{reason}: their scores are not comparable.\n"


def test_compare_takes_runs_of_another_seed_with_predefined_splits(runs, capfd, tmp_path):
    other = make_run(tmp_path, image_classifier, "d", {"accuracy": 0.7}, seed=7)
    assert run_command(capfd, "compare", str(runs[0].path), str(other.path))[2] == ""


def test_compare_refuses_one_run(runs, capfd):
    path = str(runs[0].path)
    code, out, err = run_command(capfd, "compare", path)
    assert (code, out) == (2, "")
    assert err == f"Error: compare needs at least two runs, such as: dltoolkit compare {path} OTHER_RUN\n"
    assert "is named twice" in run_command(capfd, "compare", path, path)[2]


def test_show_prints_data_scores_and_baselines_in_one_format(runs, capfd):
    rows = table(run_command(capfd, "show", str(runs[0].path))[1])
    assert rows["splits"] == ["1,000 train, 150 validation, 150 test images; predefined by folders"]
    assert rows["resizing"] == ["crop, 90.0 % of the pixels used"]
    assert rows["test accuracy"] == ["91.5 %"]
    assert rows["test macro F1"] == ["90.0 %"]
    assert rows["majority baseline"] == ["50.0 %"]
    gan = table(run_command(capfd, "show", str(runs[3].path))[1])
    assert gan["test Fréchet distance"] == ["0.1366"]
    assert gan["test coverage"] == ["82.0 %"]


def test_show_puts_balanced_accuracy_first_where_classes_are_imbalanced(tmp_path, capfd):
    per_class = {"rose": {"support": 90}, "tulip": {"support": 10}}
    scores = {"accuracy": 0.9, "balanced_accuracy": 0.5, "per_class": per_class}
    run = make_run(tmp_path, image_classifier, "a", scores)
    out = run_command(capfd, "show", str(run.path))[1]
    assert out.index("test balanced accuracy") < out.index("test accuracy")
    assert "balanced accuracy 50.0 %" in run_command(capfd, "list", "runs", "--out-dir", str(tmp_path))[1]


@pytest.fixture
def terminal(capsys, monkeypatch):
    """Return a function that prints on a terminal of 80 columns and returns the lines."""
    monkeypatch.setenv("COLUMNS", "80")

    def lines_of(function, *args, **options):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        function(*args, **options)
        return capsys.readouterr().out.splitlines()

    return lines_of


def test_tables_fit_a_terminal(terminal, runs, tmp_path):
    long = [make_run(tmp_path, image_classifier, f"a-run-with-a-long-name-{i}", SCORES, seed=i) for i in range(4)]
    for lines in (terminal(show.print_comparison, [runs[0], *long]), terminal(show.print_runs, str(tmp_path))):
        assert max(map(len, lines)) <= 80 and len(lines) > 6


def test_show_keeps_paths_and_commands_whole_on_a_terminal(terminal, runs):
    runs[0].update(command="dltoolkit train image-classifier " + 10 * "--epochs 3 ", error="it failed " * 20)
    lines = terminal(show.print_run, runs[0])
    assert sum(line.count("--epochs 3") for line in lines if line.startswith("command")) == 10
    assert all(len(line) <= 80 or line.split()[0] in ("run", "command", "report") for line in lines)
    assert sum("it failed" in line for line in lines) > 2


def test_tables_elsewhere_have_one_line_for_each_row(capsys):
    tables.print_table(["name", "text"], [["a", 50 * "word "]])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_tables_align_wide_characters_and_shorten_long_cells(capsys):
    tables.print_table([], [["北京", "a"], ["b", "c"], ["d" * 5000, "e"]], unbroken=("d" * 5000,))
    lines = capsys.readouterr().out.splitlines()
    assert [cell_len(line[: line.rindex("  ") + 2]) for line in lines] == [2002] * 3
    assert lines[2] == f"{'d' * 1999}…  e"


def test_wide_characters_are_wrapped_on_a_terminal(terminal):
    lines = terminal(tables.print_table, [], [["name", "北京" * 60]])
    assert [cell_len(line) for line in lines] == [80, 80, 80, 24]
