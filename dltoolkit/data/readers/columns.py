"""Selection of the columns of a table, and refusal of tables that are not about one class for each example."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dltoolkit.data.options import NONE, ReadOptions
from dltoolkit.data.readers import encoding, tables
from dltoolkit.data.readers.source import SPLIT_NAMES, SPLITS, Source, split_name
from dltoolkit.data.readers.tables import Table
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.formatting import counted

TEXT_PAIRS = (  # names of two columns whose texts belong together
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "document"),
    ("query", "passage"),
    ("context", "response"),
)
PAIR_ENDINGS = (("1", "2"), ("a", "b"), ("_1", "_2"), ("_a", "_b"), ("_left", "_right"), ("", "_pair"), ("", "_b"))
FLAG_COLUMNS = ("is_train", "is_training", "is_test", "is_val", "is_valid", "is_validation")
MANY_NUMBERS = 20  # different whole numbers from which labels may be quantities
RARE = 3  # examples of a class that cannot be split; if a third of many numbers are as rare, they are quantities
UNIQUE_EXAMPLES = 3  # unknown values that a message lists
MAX_QUOTED = 40  # characters of a label in a message


def normalize_label(value: Any) -> str:
    """Return the name of a label: composed Unicode (NFC) without outer spaces; "" for None, NaN and invisible names."""
    if value is None or value != value:  # NaN differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = unicodedata.normalize("NFC", str(value)).strip()
    return "" if encoding.is_blank(name) else name


def find_label(table: Table, column: str | None, usual_names: Sequence[str]) -> str:
    """Return the column of the labels.

    Raises:
        UserError: If there is none; the message says so if several columns of 0 and 1 hold the labels.
    """
    if column is None and not table.usual(usual_names):
        binary = [name for name, cells in table.columns.items() if {str(cell) for cell in cells} == {"0", "1"}]
        if len(binary) > 1:
            rows = zip(*(table.columns[name] for name in binary), strict=True)
            one_each = all(sum(str(cell) == "1" for cell in row) == 1 for row in rows)
            names = f"The columns {', '.join(binary[:5])}{', …' if len(binary) > 5 else ''} of {table.path}"
            if one_each:
                raise UserError(f"{names} are one-hot labels: write the name of the class into one column 'label'.")
            raise UserError(
                f"{names} are several labels of each example (multi-label classification), which dltoolkit does not "
                f"train: select one of them with --label-column."
            )
    return table.find(column, usual_names, "label")


def refuse_pairs(table: Table, column: str | None) -> None:
    """Raise a UserError if each row has two texts and the user has not selected one of them."""
    if column is not None:
        return
    by_lowercase = {name.lower().strip(): name for name in table.columns}
    numbered = [
        (name, stem + other)
        for name in by_lowercase
        for first, other in PAIR_ENDINGS
        if name.endswith(first) and len(stem := name.removesuffix(first)) > 2
    ]
    for pair in (*TEXT_PAIRS, *numbered):
        if all(name in by_lowercase for name in pair):
            first, second = (by_lowercase[name] for name in pair)
            if all(isinstance(cell, str) for name in (first, second) for cell in table.columns[name][:100]):
                raise UserError(
                    f"The columns '{first}' and '{second}' of {table.path} are pairs of texts, but a text classifier "
                    "reads one text: join them in one column 'text', or select one of them with "
                    f"--text-column."
                )


def refuse_same(table: Table, item_column: str, label_column: str, noun: str) -> None:
    """Raise a UserError if the examples and the labels are the same column."""
    if item_column == label_column:
        raise UserError(
            f"The column '{item_column}' of {table.path} cannot hold both the {noun}s and the labels: select different "
            f"columns with --{noun}-column and --label-column."
        )


def refuse_nested(contents: Sequence[Table], column: str) -> None:
    """Raise a UserError if a cell of the texts is a list or an object instead of a string."""
    for table in contents:
        for row, cell in enumerate(table.columns[column]):
            if isinstance(cell, (list, tuple, dict)):
                raise UserError(
                    f"{table.locate(row)} has {'an object' if isinstance(cell, dict) else 'a list'} in the column "
                    f"'{column}', but a text is a string: write its text into a column of its own."
                )


def warn_of_damaged(contents: Sequence[Table]) -> list[str]:
    """Return a warning for each table of which damaged lines were skipped."""
    return [
        f"{counted(len(table.damaged), 'line')} of {table.path} "
        f"{'is' if len(table.damaged) == 1 else 'are'} damaged and skipped; the first: {table.damaged[0]}."
        for table in contents
        if table.damaged
    ]


def find_split(
    contents: Sequence[Table], source: Source, read: ReadOptions, taken: Sequence[str]
) -> tuple[str | None, list[str]]:
    """Return the column of predefined splits, or None, and warnings about a column that is not used.

    Args:
        contents: The tables of the source.
        source: The source.
        read: Options for reading.
        taken: Columns of the examples and the labels.

    Raises:
        UserError: If the user has selected a column that names no splits, or some of its values are misspelled.
    """
    table, option = contents[0], read.split_column
    if option == NONE:
        return None, []
    usual = table.usual(tables.SPLIT_COLUMNS)
    others = [name for name in table.columns if name not in usual and _names_splits(contents, name)]
    candidates = [name for name in (*usual, *others) if name not in taken]
    if source.splits and len(source.splits) > 1:
        if option:
            raise UserError(f"--split-column has no effect on {source.spec}, whose files are the splits: leave it out.")
        files = [split for split, paths in source.splits.items() for _ in paths]
        by_file = [[split] * len(other) for split, other in zip(files, contents, strict=True)]
        return None, _warn_of_contradictions(contents, by_file, candidates, "The files are the splits")
    warnings: list[str] = []
    for name in [table.find(option, (), "split")] if option else candidates:
        values = Counter(normalize_label(cell) for other in contents for cell in other.columns[name])
        splits = {split_name(value) for value in values} - {None}
        if splits:
            if misspelled := [value for value in values if value and _is_misspelled(value, splits)]:
                listed = ", ".join(f"'{value}' ({values[value]:,})" for value in misspelled[:UNIQUE_EXAMPLES])
                raise UserError(
                    f"The column '{name}' of {source.spec} has values that name no split: {listed}. Write train, "
                    "validation or test, or ignore the column with --split-column=none."
                )
            others = [] if option else [other for other in candidates if other != name]
            cells = [_splits_in(other, name) for other in contents]
            reason = f"The column '{name}' is read as the splits"
            return name, warnings + _warn_of_contradictions(contents, cells, others, reason)
        listed = ", ".join(list(values)[:UNIQUE_EXAMPLES]) + (", …" if len(values) > UNIQUE_EXAMPLES else "")
        message = f"The column '{name}' of {source.spec} has the values {listed}, none of which names a split"
        if option:
            raise UserError(f"{message}: write train, validation or test, or ignore it with --split-column=none.")
        if name.lower() in ("split", "subset", "fold", "partition"):
            warnings.append(f"{message}, so it is ignored as a column of splits.")
    for name in table.columns:
        if name.lower().strip() in FLAG_COLUMNS and name not in taken:
            warnings.append(
                f"The column '{name}' is ignored, although its name speaks of splits: write train, validation or test "
                "into a column 'split'."
            )
    return None, warnings


def _names_splits(contents: Sequence[Table], column: str) -> bool:
    """Return whether each cell of a column names a split, and not all the same one."""
    found: set[str | None] = set()
    for table in contents:
        for cell in table.columns[column]:
            found.add(split_name(normalize_label(cell)) if isinstance(cell, str) else None)
            if None in found:
                return False
    return "train" in found and len(found) > 1


def _is_misspelled(value: str, splits: set[str]) -> bool:
    """Return whether a value of a column of splits seems to mean one, but names none."""
    return split_name(value) is None and (splits == {"train"} or bool(did_you_mean(value.lower(), SPLIT_NAMES)))


def _splits_in(table: Table, column: str) -> list[str | None]:
    return [split_name(normalize_label(cell)) for cell in table.columns[column]]


def _warn_of_contradictions(
    contents: Sequence[Table], splits: Sequence[Sequence[str | None]], others: Sequence[str], reason: str
) -> list[str]:
    """Return a warning about each other column of splits that names another split than ``splits`` for some rows."""
    warnings = []
    for column in others:
        pairs = [
            pair
            for table, of_table in zip(contents, splits, strict=True)
            for pair in zip(of_table, _splits_in(table, column), strict=True)
        ]
        if different := sum(other is not None and split != other for split, other in pairs):
            warnings.append(
                f"{reason}, and the column '{column}', which names another split in {different:,} of {len(pairs):,} "
                "rows, is ignored."
            )
    return warnings


def labels_of(contents: Sequence[Table], column: str) -> tuple[list[list[str]], list[str]]:
    """Return the normalized labels of each table, and warnings.

    Raises:
        UserError: If they are several labels for an example, or quantities instead of classes.
    """
    for table in contents:
        for row, cell in enumerate(table.columns[column]):
            if isinstance(cell, (list, tuple, dict, set)) or re.fullmatch(r"\s*\[.*\]\s*", str(cell)):
                raise UserError(_describe_lists(contents, column, f"{table.locate(row)} has"))
    labels = [[normalize_label(cell) for cell in table.columns[column]] for table in contents]
    counts = Counter(label for of_table in labels for label in of_table if label)
    labels_are = _labels_in(contents[0], column)
    select = "" if contents[0].is_object else "select a column of classes with --label-column, or "
    with_comma = next((label for label in counts if "," in label), None)
    if with_comma and all(re.fullmatch(r"[+-]?\d+(,\d+)?", label) for label in counts):
        raise UserError(_regression(labels_are, with_comma, select))
    if joined := _find_joined(counts):
        table, row = next(
            (table, of_table.index(joined))
            for table, of_table in zip(contents, labels, strict=True)
            if joined in of_table
        )
        raise UserError(_several(table, row, column, f"'{joined[:MAX_QUOTED]}'"))
    if len(counts) > 2 and {label.lower() for label in counts} == {"true", "false"}:
        return [[label.title() for label in of_table] for of_table in labels], []  # True, TRUE and true are one class
    if not _are_numbers(counts):
        return labels, []
    if fraction := next((label for label in counts if not float(label).is_integer()), None):
        raise UserError(_regression(labels_are, fraction, select))
    without_zeros = {label: re.sub(r"\.0*$", "", label) for label in counts}  # "1.0" and "1" are one class
    labels = [[without_zeros.get(label, label) for label in of_table] for of_table in labels]
    return labels, check_numbers(counts, labels_are, select)


def check_numbers(counts: Mapping[str, int], labels_are: str, select: str = "") -> list[str]:
    """Return a warning about labels that are many whole numbers.

    Args:
        counts: Number of examples of each label.
        labels_are: Beginning of a sentence, such as "The labels of a.npz are".
        select: What else the user may do about quantities, such as "select another column, or ".

    Raises:
        UserError: If the numbers are mostly rare, so that they are quantities instead of classes.
    """
    if len(counts) <= MANY_NUMBERS or not _are_numbers(counts):
        return []
    if sum(count < RARE for count in counts.values()) > len(counts) / 3:
        raise UserError(_regression(labels_are, next(iter(counts)), select))
    numbers = sorted(map(float, counts))
    return [
        f"{labels_are} {len(counts)} numbers from {numbers[0]:g} to {numbers[-1]:g}; each becomes a class, without "
        "their order."
    ]


def _are_numbers(labels: Collection[str]) -> bool:
    number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
    return bool(labels) and all(number.fullmatch(label) for label in labels)


def warn_of_alternatives(table: Table, taken: Mapping[str, str], read: ReadOptions) -> list[str]:
    """Return warnings about columns whose names mean the same as those that were taken by their usual names.

    Args:
        table: The table.
        taken: The columns that are read, by their meaning: "text" or "image", and "label".
        read: Options for reading; a column that the user has selected needs no warning.
    """
    usual_names = {"image": tables.IMAGE_COLUMNS, "text": tables.TEXT_COLUMNS, "label": tables.TEXT_LABEL_COLUMNS}
    warnings = []
    for meaning, column in taken.items():
        usual = table.usual(usual_names[meaning])
        others = [f"'{name}'" for name in usual if name not in taken.values() and not name.lower().endswith("id")]
        if getattr(read, f"{meaning}_column", None) is None and column in usual and others:
            warnings.append(
                f"The column '{column}' is read as the {meaning}, not {', '.join(others)}; "
                f"--{meaning}-column selects another."
            )
    return warnings


def assign_split(value: Any, left_out: Counter) -> str | None:
    """Return the split that a cell of the split column names; "" for an empty cell, None for an unknown name."""
    text = normalize_label(value)
    split = split_name(text) if text else ""
    if split is None:
        left_out[text] += 1
    return split


def warn_of_left_out(left_out: Counter, column: str, noun: str) -> list[str]:
    """Return a warning about the rows whose cell in the split column names no split."""
    if not left_out:
        return []
    listed = ", ".join(f"'{value}' ({count:,})" for value, count in left_out.most_common(UNIQUE_EXAMPLES))
    return [
        f"{sum(left_out.values()):,} {noun}s are left out, because their '{column}' is none of {', '.join(SPLITS)}: "
        f"{listed}."
    ]


def describe_incomplete(incomplete: Sequence[str], examples: Iterable[Any]) -> str:
    """Return the message about incomplete rows.

    Args:
        incomplete: A description of each row that lacks the example, the label or the split.
        examples: The examples of the other rows; a blank one is incomplete too.
    """
    blank = sum(isinstance(example, str | bytes) and not example.strip() for example in examples)
    others = len(incomplete) - 1 + blank
    more = f", and {others} more {'rows are' if others > 1 else 'row is'} incomplete" if others else ""
    return f"{incomplete[0]}{more}: correct or remove them, or skip them with --skip-invalid."


def _find_joined(counts: Counter) -> str | None:
    """Return a label that joins several labels, such as "comedy|drama", or None.

    With "|" and ";" one of its parts, with "," all of them, must occur in other labels too; otherwise, the sign may be
    part of a name.
    """
    for sign, enough in (("|", any), (";", any), (",", all)):
        parts = {label: {part.strip() for part in label.split(sign)} - {""} for label in counts if sign in label}
        uses = Counter(part for label in counts for part in parts.get(label, {label}))
        for label, of_label in parts.items():
            if len(of_label) > 1 and enough(uses[part] > 1 for part in of_label):
                return label
    return None


def _describe_lists(contents: Sequence[Table], column: str, first: str) -> str:
    """Return the message about labels that are lists, with the first list of several labels if there is one."""
    for table in contents:
        for row, cell in enumerate(table.columns[column]):
            labels = _items(cell)
            if len(labels) > 1:
                listed = ", ".join(f"'{label[:MAX_QUOTED]}'" for label in labels[:UNIQUE_EXAMPLES])
                more = ", …" if len(labels) > UNIQUE_EXAMPLES else ""
                return _several(table, row, column, listed + more)
    return f"{first} a list in the column '{column}', but a label is a name: give the name alone."


def _items(cell: Any) -> list[str]:
    """Return the labels in a cell that is a list, or is written like one."""
    if isinstance(cell, (list, tuple, dict, set)):
        return [str(label) for label in cell]
    if not (match := re.fullmatch(r"\s*\[(.*)\]\s*", str(cell))):
        return []
    quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", match[1])
    return ["".join(pair) for pair in quoted] or [part for label in match[1].split(",") if (part := label.strip())]


def _several(table: Table, row: int, column: str, listed: str) -> str:
    return (
        f"{table.locate(row)} has several labels in the column '{column}' ({listed}; multi-label classification), "
        "which dltoolkit does not train: keep one label for each example."
    )


def _regression(labels_are: str, value: str, select: str) -> str:
    return (
        f"{labels_are} numbers such as {value} (regression), which dltoolkit does not train: {select}divide the "
        "numbers into named classes."
    )


def _labels_in(table: Table, column: str) -> str:
    """Return the subject and verb of a sentence about labels; pairs that a Python program holds have no columns."""
    return f"The labels of {table.path} are" if table.is_object else f"The column '{column}' of {table.path} holds"
