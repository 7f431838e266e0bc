"""Files that the cells of a table name."""

from pathlib import Path

import pytest

from dltoolkit.data.readers.file_names import FileFinder
from dltoolkit.errors import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images/cats/1.jpg", "images/cats/1.jpg"),
        ("images\\cats\\1.jpg", "images/cats/1.jpg"),
        ("images/cats/1", "images/cats/1.jpg"),
        ("images/cats/0a1b.2", "images/cats/0a1b.2.PNG"),
        ("only.jpg", "images/dogs/only.jpg"),
        ("only", "images/dogs/only.jpg"),
        ("images/dogs/\u00e9t\u00e9.jpg", "images/dogs/e\u0301te\u0301.jpg"),
        ("gone.jpg", "gone.jpg"),
        ("a\0b", "a\0b"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_find_returns_the_file_of_a_name(tmp_path: Path, name: str, expected: str) -> None:
    files = ("cats/1.jpg", "dogs/1.jpg", "cats/0a1b.2.PNG", "dogs/only.jpg", "dogs/e\u0301te\u0301.jpg")
    for file in files:
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / file).touch()
    assert FileFinder((".jpg", ".png")).find(name, tmp_path) == tmp_path / expected


@pytest.mark.parametrize(
    ("name", "remedy"), [("images/a", "its suffix"), ("b.jpg", "its folder"), ("b", "its folder"), ("a", "its folder")]
)
def test_find_refuses_a_name_of_several_files(tmp_path: Path, name: str, remedy: str) -> None:
    for file in ("images/a.png", "images/a.jpg", "images/cats/b.jpg", "images/dogs/b.jpg"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"The name '{name}' in the table means both .*: write {remedy}"):
        FileFinder((".jpg", ".png")).find(name, tmp_path)
    assert FileFinder((".jpg", ".png")).find("images/a.png", tmp_path) == tmp_path / "images/a.png"
