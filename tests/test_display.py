"""Control characters that people see instead of executing them, and commands that a shell takes apart again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dltoolkit import display, option_names
from dltoolkit.errors import UserError, root_cause

HOSTILE = "a\x1b[2Jb\x9b1mc\u202ed\ne\tf\rg\x00h\u2028i\u200bj\udcffk\U000e0041"
SHOWN = r"a\x1b[2Jb\x9b1mc\u202ed\ne\tf\rg\x00h\u2028i\u200bj\udcffk\U000e0041"


def test_visible_shows_control_characters_and_leaves_languages_alone():
    assert display.visible(HOSTILE) == SHOWN
    assert display.visible("a\nb\x1bc", keep="\n") == "a\nb\\x1bc"
    for text in ("plain", "na\u0131ve\N{NO-BREAK SPACE}café", "猫", "می\u200cخواهم", "👩\u200d👧", "C:\\new"):
        assert display.visible(text) == text


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_shell_takes_a_command_apart_into_its_words():
    words = [
        "predict",
        "my run",
        "it's",
        "$HOME",
        "`ls`",
        "a;b",
        "*",
        "",
        "back\\slash",
        HOSTILE.replace("\0", ""),
        "-x",
    ]
    line = display.command(*words)
    assert line.isprintable()
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert printed.decode(errors="surrogateescape").split("\0")[:-1] == words
    assert display.quote(Path("-rf")) == "./-rf", "a path is never an option"
    assert display.quote(Path("a b")) == "'a b'"


MESSAGE = "--data 'x --y' has no --labels: use --device=cpu, --min-df=1, --no-augment or --out-dir=/a/b. Not a--b, /--c"


def test_errors_spell_options_as_the_caller_writes_them():
    error = UserError(MESSAGE)
    assert str(error) == (
        "data 'x --y' has no labels: use device='cpu', min_df=1, augment=False or out_dir='/a/b'. Not a--b, /--c"
    )
    with option_names.flags():
        assert str(error) == (
            "--data 'x --y' has no --labels: use --device cpu, --min-df 1, --no-augment or --out-dir /a/b. "
            "Not a--b, /--c"
        )
    command = "It has stopped. Resume with: dltoolkit resume a --recipe b.py"
    assert str(UserError(command)) == command
    assert str(UserError("--class and --top-k")) == "label and top_k", "names of parameters of generate"


def test_errors_show_control_characters():
    assert str(UserError(f"There is no run '{HOSTILE}'.")) == f"There is no run '{SHOWN}'."
    assert root_cause(ValueError("a\x1b[2Jb")) == r"a\x1b[2Jb"
