"""The order of the first steps of a training: mistakes are answered before TensorFlow is imported."""

import json
import subprocess
import sys

import pytest
from conftest import toy_texts, write_images, write_texts

from dltoolkit import machine
from dltoolkit.errors import UserError

# Run each command in one process that has not imported TensorFlow; print the exit codes and the messages
RUN_ALL = """
import contextlib, io, json, sys
from dltoolkit import cli
answers = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try: cli.main(words)
        except SystemExit as stop: code = stop.code
    answers.append([code, stderr.getvalue(), sorted({"tensorflow", "keras"} & set(sys.modules))])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def wrong_data(tmp_path_factory):
    """Return a folder with one wrong data set of each kind."""
    folder = tmp_path_factory.mktemp("wrong")
    images = write_images(folder / "broken", 4, side=8)
    (images / "bars" / "0.png").write_bytes(b"not an image")
    write_images(folder / "few", 1, side=8)
    texts = write_texts(folder / "latin1", toy_texts(20))
    (texts / "good" / "zz.txt").write_bytes("süß".encode("latin-1"))
    (folder / "one.csv").write_text("text,label\n" + "".join(f"nice {i},good\n" for i in range(9)))
    (folder / "latin1.txt").write_bytes("süß ".encode("latin-1") * 99)
    (folder / "empty").mkdir()
    return folder


def test_mistakes_are_answered_before_tensorflow_is_imported(wrong_data, tmp_path):
    cases = [
        (["image-classifier", str(wrong_data / "broken")], "1 of 12 images cannot be used"),
        (["image-classifier", str(wrong_data / "few")], "only 1 image"),
        (["image-classifier", str(wrong_data / "empty")], "is empty"),
        (["image-classifier", "digits", "--device", "gpus"], "'gpus' is not a device"),
        (["image-classifier", "digits", "--device", "cpu:many"], "'cpu:many' is not a device"),
        (["image-gan", str(wrong_data / "few")], "only 1 image"),
        (["sentiment-analyzer", str(wrong_data / "latin1")], "UTF-8"),
        (["sentiment-analyzer", str(wrong_data / "one.csv")], "only one class, 'good'"),
        (["text-generator", str(wrong_data / "latin1.txt")], "UTF-8"),
        (["text-generator", str(wrong_data / "nowhere.txt")], "No such file"),
        (["fine-tune", str(wrong_data / "few")], "only 1 image"),
        (["fine-tune", str(wrong_data / "broken"), "--backbone", "MobileNetV2"], "1 of 12 images cannot be used"),
        (["fine-tune", "digits", "--unfreeze", "half"], "--unfreeze must be a number"),
        (["fine-tune", str(wrong_data / "latin1")], "holds texts"),
    ]
    commands = [["train", *words, "--out-dir", str(tmp_path / "runs")] for words, _ in cases]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(commands), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for (words, message), (code, error, imported) in zip(cases, json.loads(done.stdout), strict=True):
        assert (code, imported) == (2, []), (words, error)
        assert message in error, words
        assert error.startswith("Error: ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("device", "parsed"),
    [
        ("auto", ("auto", None)),
        (" GPU ", ("gpu", None)),
        ("gpu:0,1", ("gpu", "0,1")),
        ("tpu:My-TPU", ("tpu", "My-TPU")),
    ],
)
def test_parse_device_returns_kind_and_selection(device, parsed):
    assert machine.parse_device(device) == parsed


@pytest.mark.parametrize("device", ["", "auto:1", "cpu:0", "cpu:65", "gpu:a", "gpu:0,", "cuda"])
def test_parse_device_refuses_other_forms(device):
    with pytest.raises(UserError, match="is not a device"):
        machine.parse_device(device)
