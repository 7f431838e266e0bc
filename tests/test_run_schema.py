"""Damaged and hostile files of runs: each is one sentence that names the file, and breaks nothing for other runs."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import run_command

import dltoolkit
from dltoolkit import recipe, run_schema
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.run import Run

FILE = str(recipe.names()["image-classifier"])
DEEP = "[" * 100_000
SCORES = {"accuracy": 0.9, "accuracy_ci95": [0.8, 1.0], "macro_f1": 0.9, "per_class": {"a": {"support": 3}}}


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory) -> Path:
    """Make three finished runs, and return their folder."""
    folder = tmp_path_factory.mktemp("undamaged")
    for day, name in enumerate(("one", "two", "bad"), start=1):
        run = Run.create(FILE, RunConfig(out_dir=str(folder), name=name), "toys")
        run.update(
            state="finished",
            created=f"2020-01-0{day}T00:00:00+00:00",
            data={"source": "toys", "classes": ["a", "b"], "splits": {"train": 9}, "image_shape": [8, 8, 1]},
            plan={"epochs": 3, "steps": 30, "summary": [["Data", "toys"]]},
            model={"name": "cnn", "parameters": 123, "input_shape": [8, 8, 1]},
            time={"train_seconds": 1.5},
        )
        run.write_json("metrics.json", {"test": SCORES, "baseline": {"majority": {"accuracy": 0.5, "note": "x"}}})
        run.write_rows("history.csv", [{"epoch": 1, "step": 10, "loss": 0.5}])
    return folder


@pytest.fixture
def bad(undamaged, tmp_path) -> Path:
    """Copy the runs, and return the directory of the latest one, which the test damages."""
    shutil.copytree(undamaged, tmp_path, dirs_exist_ok=True)
    return tmp_path / "image-classifier" / "bad"


def write(path: Path, content: bytes | str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(path: Path, field: str, value: str) -> str:
    """Return a JSON file with the JSON text ``value`` in place of a field; ``a.b`` is the field b of a."""
    content = json.loads(path.read_text())
    *parents, last = field.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = "PLACE"
    return json.dumps(content).replace('"PLACE"', value)


RUN_FIELDS = [  # fields of run.json, wrong values, and what the sentence says about them
    ("state", "3", "'state' must be failed or finished or interrupted or running or starting, not 3"),
    ("state", '"dead"', "not the text 'dead'"),
    ("state", "[]", "not a list of 0"),
    ("recipe", "{}", "'recipe' must be a name of at most 255 characters without slashes, not an object"),
    ("config", "[1]", "'config' must be an object, not a list of 1"),
    ("config.epochs", '{"a": 1}', "'config.epochs' must be"),
    ("config.epochs", DEEP, "nested too deeply"),
    ("config.epochs", "9" * 5000, "5,000 digits"),
    ("config.epochs", "9" * 300, "'config.epochs' has a number of more than 63 bits"),
    ("config.epochs", "1e999", "too large"),
    ("config.epochs", "NaN", "no number of JSON"),
    ("recipe", '"../fine-tune"', "'recipe' must be a name"),
    ("recipe", f'"{"a" * 256}"', "'recipe' must be a name"),
    ("created", "12", "'created' must be a time with a time zone such as 2026-01-31T12:00:00\\+00:00, not 12"),
    ("created", '"9999-99-99T00:00:00+00:00"', "'created' must be a time"),
    ("created", '"2026-01-31T12:00:00"', "'created' must be a time"),
    ("created", '"2026-W01-1T00:00:00+00:00"', "'created' must be a time"),
    ("created", f'"{"x" * 1_000_000}"', "'created' must be a time"),
    ("data", "[]", "'data' must be an object"),
    ("data.classes", '"abc"', "'data.classes' must be a list, not the text 'abc'"),
    ("data.classes", '["a", 7]', r"'data.classes\[1\]' must be a text, not 7"),
    ("data.classes", "null", "not null"),
    ("data.splits", '{"train": "many"}', "'data.splits.train' must be a whole number from 0 on, not the text 'many'"),
    ("data.image_shape", "[8, 8]", "'data.image_shape' must be a list of 3, not a list of 2"),
    ("data.image_shape", "[8, 8, -1]", "must be a whole number from 1 to 8,192, not -1"),
    ("data.scale", '{"low": true}', "'data.scale.low' must be a number, not true"),
    ("model.parameters", "1.5", "'model.parameters' must be a whole number"),
    ("model.input_shape", "8", "'model.input_shape' must be a list"),
    (
        "plan.epochs",
        '"3"',
        "'plan.epochs' must be a whole number from 1 to 1,000,000,000,000 or null, not the text",
    ),
    ("plan.summary", "[3]", r"'plan.summary\[0\]' must be a list of 2"),
    ("time.train_seconds", "1e300", "'time.train_seconds' must be a number from 0 to 10,000,000,000, not 1e\\+300"),
    ("resolved.context_length", "9" * 18, "'resolved.context_length' must be a whole number from 4 to 65,536, not 9+"),
    (
        "data.image_shape",
        "[1000000000, 8, 1]",
        r"image_shape\[0\]' must be a whole number from 1 to 8,192, not 1",
    ),
    ("anything", f"[{'{},' * 300_000}{{}}]", "more than 262,144 objects and lists"),
    ("anything", f"[{'0,' * (1 << 21)}0]", "more than 4 MiB"),
    ("time", "null", "'time' must be an object"),
    ("resolved.context_length", "0", "'resolved.context_length' must be a whole number from 4 to 65,536, not 0"),
    ("anything", "[" * 30 + "]" * 30, "nested too deeply"),
    ("anything", "1" + "0" * 100, "63 bits"),
]


@pytest.mark.parametrize(("field", "value", "words"), RUN_FIELDS)
def test_wrong_run_json_is_one_sentence_and_no_other_run_suffers(bad, tmp_path, capfd, field, value, words):
    path = bad / "run.json"
    write(path, changed(path, field, value))
    code, out, err = run_command(capfd, "show", "bad", "--out-dir", str(tmp_path))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"Error: {path} is damaged: ")
    assert re.search(words, err), err
    code, out, err = run_command(capfd, "list", "runs", "--out-dir", str(tmp_path))
    assert (code, re.findall(r"image-classifier/\w+", out)) == (0, ["image-classifier/one", "image-classifier/two"])
    assert err.startswith(f"Warning: {path} is damaged: ")
    code, out, err = run_command(capfd, "show", "latest", "--out-dir", str(tmp_path))
    assert (code, "image-classifier/two" in out) == (0, True)
    assert err.startswith(f"Warning: {path} is damaged: "), "the damaged run may be the latest"
    code, out, err = run_command(capfd, "compare", "one", "two", "--out-dir", str(tmp_path))
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 2, "recipe": "x", "recipe": "image-classifier", "state": "finished", "config": {}}', "twice"),
        ("", "damaged"),
        (DEEP, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[1, 2]", "has no recipe and no state and no config"),
        ("3", "has no recipe and no state and no config"),
        ('{"recipe": "x"}', "has no state and no config"),
        (b'{"recipe": "\xff"}', "not UTF-8"),
        ("{} {}", "Extra data"),
    ],
)
def test_wrong_json_is_one_sentence(bad, content, words):
    path = bad / "run.json"
    write(path, content)
    with pytest.raises(UserError, match=words) as error:
        dltoolkit.load(bad)
    assert str(error.value).startswith(f"{path} is damaged")


@pytest.mark.parametrize("number", ["1", "3", "2.0", "true", "null", "[2]", '{"a": 1}', '"2"', "9" * 18])
def test_unknown_format_is_one_sentence(bad, tmp_path, capfd, number):
    path = bad / "run.json"
    write(path, changed(path, "format", number))
    code, out, err = run_command(capfd, "show", "bad", "--out-dir", str(tmp_path))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "but this version reads only format 2: train a new run" in err
    assert len(err) < 400


METRICS = [
    ("test", "[]", "'test' must be an object"),
    ("test.accuracy", '"high"', "'test.accuracy' must be a number, not the text 'high'"),
    ("test.accuracy", "NaN", "no number of JSON"),
    ("test.loss", "1e999", "too large"),
    ("test.accuracy_ci95", "[0.5]", "'test.accuracy_ci95' must be a list of 2 or null, not a list of 1"),
    ("test.per_class", '{"a": {"support": "x"}}', "'test.per_class.a.support' must be"),
    ("test.per_class", '{"a": {}}', "is incomplete: it has no 'test.per_class.a.support'"),
    ("test.confusion", "[[1, 2], 3]", r"'test.confusion\[1\]' must be a list"),
    ("test.confusion", "[[1, -2]]", r"'test.confusion\[0\]\[1\]' must be a whole number from 0 on"),
    ("baseline", '{"linear": 3}', "'baseline.linear' must be an object"),
    ("baseline", DEEP, "nested too deeply"),
]


@pytest.mark.parametrize(("field", "value", "words"), METRICS)
def test_wrong_metrics_are_one_sentence_and_no_other_run_suffers(bad, tmp_path, capfd, field, value, words):
    path = bad / "metrics.json"
    write(path, changed(path, field, value))
    for command in (["show", "bad"], ["compare", "one", "bad"]):
        code, out, err = run_command(capfd, *command, "--out-dir", str(tmp_path))
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith(f"Error: {path} is ")
        assert re.search(words, err), err
    code, out, err = run_command(capfd, "list", "runs", "--out-dir", str(tmp_path))
    assert (code, out.count("90.0 %"), "image-classifier/bad" in out) == (0, 2, True)
    assert err.startswith(f"Warning: {path} is ")


@pytest.mark.parametrize(
    "content",
    [
        "epoch,step,loss\n1,nan,0.5\n",
        "epoch,step,loss\n1,2.5,0.5\n",
        "epoch,step,loss\n1,-3,0.5\n",
        "epoch,step,loss\n1,1e30,0.5\n",
        "epoch,step,loss\n1,2\n",
        "epoch,step,loss\n1,2,3,4\n",
        b"epoch,step,loss\n1,2,\xff\n",
        "epoch,step,loss\n1,2,\0\n",
        f"epoch,step,loss\n1,2,{'9' * 200_000}\n",
    ],
)
def test_wrong_history_is_one_sentence(bad, tmp_path, capfd, content):
    path = bad / "history.csv"
    write(path, content)
    code, out, err = run_command(capfd, "show", "bad", "--out-dir", str(tmp_path))
    assert (code, out, err) == (2, "", f"Error: {path} is damaged; resume the run to write it again.\n")


def test_a_field_that_is_needed_and_missing_is_named(bad):
    run = dltoolkit.load(bad)
    with pytest.raises(UserError, match="run.json is incomplete: it has no 'plan.extractor_steps'"):
        _ = run.info["plan"]["extractor_steps"]
    assert run.info.get("task") is None
    assert json.loads(json.dumps(run.info)) == run.info


@pytest.mark.parametrize(
    ("field", "value", "missing"),
    [
        ("device", '{"kind": "cpu", "precision": "float32"}', "device.replicas"),
        ("device", '{"replicas": 1, "precision": "float32"}', "device.kind"),
        ("model", '{"name": "cnn"}', "model.parameters"),
    ],
)
def test_a_field_that_show_needs_is_named(bad, tmp_path, capfd, field, value, missing):
    path = bad / "run.json"
    write(path, changed(path, field, value))
    code, out, err = run_command(capfd, "show", "bad", "--out-dir", str(tmp_path))
    assert (code, out, err) == (2, "", f"Error: {path} is incomplete: it has no '{missing}', which this needs.\n")


def test_ten_thousand_classes_and_unread_fields_are_read(bad):
    path = bad / "run.json"
    classes = [f"{number:05}{'n' * 250}" for number in range(10_000)]
    write(path, changed(path, "data.classes", json.dumps(classes)))
    write(path, changed(path, "unread", '{"a": [{}, {"b": 1}]}'))
    info = dltoolkit.load(bad).info
    assert info["data"]["classes"] == classes
    assert (type(info["data"]), type(info["unread"]), type(info["unread"]["a"][1])) == (run_schema.Fields, dict, dict)


def test_a_run_json_that_could_not_be_read_is_not_written(bad):
    run = dltoolkit.load(bad)
    before = (bad / "run.json").read_bytes()
    with pytest.raises(UserError, match="would have more than 4 MiB: use fewer classes, or shorter names"):
        run.update(data={"classes": ["n" * 250] * 20_000})
    assert (bad / "run.json").read_bytes() == before


def test_a_byte_order_mark_is_no_part_of_a_file(bad):
    before = dltoolkit.load(bad).info
    write(bad / "run.json", b"\xef\xbb\xbf" + (bad / "run.json").read_bytes())
    assert dltoolkit.load(bad).info == before


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("nosuch", "3", "There is no option 'nosuch'"),
        ("image_size", "1000000000", "image_size must be at most 1024, not 1000000000"),
        ("seed", "null", "seed needs a value"),
    ],
)
def test_wrong_options_of_a_run_are_an_error_of_its_file(bad, field, value, words):
    path = bad / "run.json"
    write(path, changed(path, f"config.{field}", value))
    message = re.escape(f"{path} is damaged: its config is wrong ({words}")
    with pytest.raises(UserError, match=message):
        _ = dltoolkit.load(bad).config
    with pytest.raises(UserError, match=message):
        dltoolkit.resume(bad, epochs=9)


def test_a_wrong_preprocessing_is_an_error_of_its_file(bad):
    path = bad / "run.json"
    write(path, changed(path, "data.image_shape", "[8, 8, 2]"))
    with pytest.raises(UserError, match=re.escape(f"{path} describes a damaged preprocessing of images")):
        dltoolkit.load(bad).preprocess([])


def test_compare_shows_a_time_that_is_none(bad, tmp_path, capfd):
    write(bad / "run.json", changed(bad / "run.json", "config.max_time", '"soon"'))
    code, out, err = run_command(capfd, "compare", "one", "bad", "--out-dir", str(tmp_path))
    assert (code, "soon" in out, err) == (0, True, "")


def test_large_lists_of_counts_are_checked(tmp_path):
    counts = list(range(1000))
    assert run_schema.check(counts, [run_schema.COUNT], tmp_path) == counts
    for wrong in (-1, 1 << 70, True, 1.5):
        with pytest.raises(run_schema.Invalid):
            run_schema.check([*counts, wrong], [run_schema.COUNT], tmp_path)
