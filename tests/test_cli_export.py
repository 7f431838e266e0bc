"""The verb that exports runs: what it does if a file cannot be written."""

import shutil
from pathlib import Path

import pytest
from conftest import run_command


@pytest.fixture
def copy(patches_run, tmp_path):
    """A copy of a run, which a test may damage."""
    return Path(shutil.copytree(patches_run.path, tmp_path / "a run"))


def test_report_that_cannot_be_changed_is_no_reason_to_lose_an_export(copy, tmp_path, capfd):
    (copy / "report.html").write_bytes(b"\xff")
    code, _, messages = run_command(capfd, "export", str(copy), "--format", "keras", "--json")
    assert code == 0
    assert "The table of the exports is not in the report: " in messages
    assert (copy / "exports" / "keras" / "SHA256SUMS").exists()
    assert (copy / "report.html").read_bytes() == b"\xff"


def test_all_formats_fail_if_none_can_be_written(copy, capfd):
    (copy / "exports").write_text("a file in place of the folder")
    code, out, messages = run_command(capfd, "export", str(copy), "--format", "all")
    assert (code, out) == (2, "")
    assert messages.count("Warning: No ") == 4
    assert messages.endswith("Error: No format was written: the warnings say why.\n")


def test_finished_run_without_its_model_is_refused(copy, capfd):
    (copy / "model.keras").unlink()
    code, _, messages = run_command(capfd, "export", str(copy))
    assert code == 2
    assert messages == f"Error: {copy} has no model: model.keras is missing.\n"
