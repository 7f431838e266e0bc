"""The standard streams of the command line: closed, full, without a reader, or a terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "dltoolkit", "list", "recipes"]
WRONG = [sys.executable, "-m", "dltoolkit", "show", "no-such-run"]


def start(redirection: str, words: list[str] = COMMAND, **streams) -> subprocess.Popen:
    """Start a command with the redirection of a shell; its other outputs are pipes."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(["sh", "-c", f'exec "$@" {redirection}', "sh", *words], text=True, **streams)


def test_an_answer_that_cannot_be_written_is_an_error_and_a_lost_message_is_none():
    closed_reader, without_reader = os.pipe()
    os.close(closed_reader)
    processes = {  # all at once, because each takes a moment to start
        "no stdout": start(">&-"),
        "no reader": start("", stdout=without_reader),
        "no stderr": start("2>&-"),
        "no reader of errors": start("", WRONG, stderr=without_reader),
        "no stream": start("<&- >&- 2>&-"),
    }
    if os.path.exists("/dev/full"):
        processes |= {"full": start(">/dev/full"), "full of errors": start("2>/dev/full")}
    os.close(without_reader)
    ends = {name: (*process.communicate(timeout=60), process.returncode) for name, process in processes.items()}
    lost = "Error: The answer cannot be written to stdout: {}.\n".format
    assert ends["no stdout"] == ("", lost("it is closed"), 1)
    assert ends["no reader"] == (None, "", 141), "ends as other commands do, without a message"
    assert "image-classifier" in ends["no stderr"][0]
    assert ends["no stderr"][1:] == ("", 0)
    assert ends["no reader of errors"] == ("", None, 2)
    assert ends["no stream"][2] == 1
    if "full" in ends:
        assert ends["full"] == ("", lost("No space left on device"), 1)
        assert ends["full of errors"] == ends["no stderr"]


PRINT = """
import logging, sys, warnings
from dltoolkit import progress, streams
from dltoolkit.cli import tables
with streams.standard_streams():
    print("generated\\x1b[31m text\\x9b\\t\\nsecond line")
    tables.print_table(["name"], [["x\\x1b[31m\\ny"]])
    tables.print_json({"name": "\\x1b[31m\\u202e\\x9b\\u2028"})
    sys.stdout.flush()
    warnings.warn("a warning\\x1b[31m")
    logging.getLogger("other").error("a log %s", "line\\x1b[31m")
    progress.note("a note\\x1b[31m\\nin one line")
    progress.warn("another\\x1b[31m")
"""
JSON = '{\n  "name": "\\u001b[31m\\u202e\\u009b\\u2028"\n}\n'


@pytest.mark.parametrize("is_terminal", [False, True])
def test_people_see_control_characters_and_programs_get_them(is_terminal, tmp_path):
    controller, terminal = pty.openpty()
    (tmp_path / "show.py").write_text(PRINT)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "show.py")],
        stdout=terminal if is_terminal else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(terminal)
    out, err = process.communicate(timeout=60)
    if is_terminal:
        out = os.read(controller, 10_000).replace(b"\r\n", b"\n").replace(b"\x1b[1mname\x1b[0m", b"name")
    os.close(controller)
    text, table = "generated\x1b[31m text\x9b\t\nsecond line\n", "name\nx\\x1b[31m\\ny\n"
    if is_terminal:
        text = "generated\\x1b[31m text\\x9b\t\nsecond line\n"
    assert out.decode() == text + table + JSON
    assert json.loads(JSON) == {"name": "\x1b[31m\u202e\x9b\u2028"}
    assert b"\x1b" not in err
    for message in ("a warning\\x1b[31m", "a log line\\x1b[31m", "a note\\x1b[31m\\nin one line", "another\\x1b[31m"):
        assert message in err.decode()


def test_a_closed_stderr_stops_no_python_program(tmp_path: Path):
    code = "from dltoolkit import progress; progress.note('lost'); progress.warn('lost'); print('done')"
    process = start("2>&-", [sys.executable, "-c", code])
    assert process.communicate(timeout=60)[0] == "done\n"
