"""What the JSON files of a run hold. A file that does not fit its description is refused when it is read.

A description is a type (``str``, ``bool``, ``int`` for a whole number, ``float`` for any number), a :class:`Number`
with bounds, a :class:`Text` of a form, a set of texts, None, a tuple of alternatives, ``[x]`` for a list, ``[x, y]``
for a list of two, ``{str: x}`` for an object with any keys, or ``{"name": x}`` for an object in which such a field, if
it is there, must fit. Other fields may hold anything.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltoolkit import files, strict_json
from dltoolkit.errors import UserError

MAX_BYTES = 1 << 28  # of a file; a confusion matrix of 4,000 classes takes half of it
SMALL_BYTES = 1 << 22  # of a file in SMALL_FILES; 10,000 names of classes, each as long as file names may be, take 3 MB
SMALL_FILES = ("run.json", "labels.json", "export.json", "preprocessing.json", "SHA256SUMS")
MAX_CONTAINERS = 1 << 18  # objects and lists of a file; the merges of the largest tokenizer are a quarter of them
MAX_DEPTH = 24  # objects and lists inside each other; the deepest of a run has 6
MAX_NUMBER = 1 << 63
SHOWN_CHARACTERS = 60  # of a wrong value in a message


@dataclass(frozen=True)
class Number:
    """A number from ``minimum`` to ``maximum``."""

    minimum: float
    maximum: float = MAX_NUMBER
    whole: bool = True


@dataclass(frozen=True)
class Text:
    """A text that ``fits`` accepts; ``words`` describe it."""

    words: str
    fits: Callable[[str], bool]


def _is_time(text: str) -> bool:
    try:
        # which fromisoformat reads in other forms, too, such as that of weeks
        is_date = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", text, re.ASCII) is not None and len(text) <= 40
        return is_date and datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


ANYTHING = object  # the description of what this program does not read
COUNT, SIZE = Number(0), Number(1, 10**12)
SIDE = Number(1, 8192)  # pixels of a side of an image
CONTEXT = Number(4, 65_536)  # tokens that a language model reads, from the least --context-length on
NAME = Text("a name of at most 255 characters without slashes", lambda text: bool(re.fullmatch(r"[^/\\]{1,255}", text)))
TIME = Text("a time with a time zone such as 2026-01-31T12:00:00+00:00", _is_time)
SECONDS = Number(0, 10**10, whole=False)
FRACTION = Number(0, 1, whole=False)
SHAPE = [(SIZE, None)]
INTERVAL = ([float, float], None)
OPTION = (str, bool, float, None, [(str, bool, float)])

# run.json; docs/run_directory.md says what the fields mean
RUN = {
    "format": int,
    "recipe": NAME,
    "recipe_file": str,
    "name": (str, None),
    "state": {"starting", "running", "interrupted", "failed", "finished"},
    "created": TIME,
    "command": str,
    "config": {str: OPTION},
    "versions": {str: (str, None)},
    "machine": {str: (str, float, None)},
    "error": (str, None),
    "files": {str: str},
    "data": {
        "source": str,
        "columns": {str: str},
        "fingerprint": str,
        "splits": {str: COUNT},
        "split_origin": (str, None),
        "classes": [str],
        "warnings": [str],
        "image_shape": [SIDE, SIDE, SIDE],
        "scale": {"low": float, "high": float, "minimum": float, "maximum": float, "levels": float},
        "resize": {"mode": str, "pixels_used": FRACTION},
        "truncated": {"count": COUNT, "fraction": FRACTION, "max_length": SIZE, "unit": str},
        "unknown": {"count": COUNT, "fraction": FRACTION, "unit": str},
        "characters": {str: COUNT},
        "vocab_size": COUNT,
    },
    "conditional": bool,
    "task": {"image", "text"},
    "max_length": (SIZE, None),
    "backbone_sha256": str,
    "linear_probe": {str: float},
    "selected": (str, None),
    "learning_curve": ([{str: float}], None),
    "resolved": {
        **{"layers": SIZE, "embedding_dim": SIZE, "heads": SIZE, "context_length": CONTEXT, "ensemble_size": SIZE},
        **{"dropout": FRACTION, "batch_tokens": SIZE},
    },
    "device": {"kind": str, "replicas": SIZE, "workers": SIZE, "precision": str, "xla": bool},
    "plan": {
        "batch_size": SIZE,
        "steps_per_epoch": SIZE,
        "steps_per_execution": SIZE,
        "monitor": str,
        "patience": (SIZE, None),
        "epochs": (SIZE, None),
        "steps": (COUNT, None),
        "compile_seconds": SECONDS,
        "extractor_steps": COUNT,
        "summary": [[str, str]],
    },
    "model": {"name": str, "parameters": COUNT, "trainable_parameters": COUNT, "input_shape": SHAPE},
    "optimizer": {"name": str, "learning_rate": float},
    "calibration": {"temperature": float},
    "time": {"train_seconds": SECONDS, "total_seconds": SECONDS},
    "peak_memory_mb": Number(0, whole=False),
}
RUN_REQUIRED = ("recipe", "state", "config")

NAMES = (
    *("loss", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "ece", "roc_auc"),
    *("average_precision", "bits_per_character", "perplexity", "tokens", "characters", "frechet_distance"),
    *("kernel_distance", "precision", "recall", "density", "coverage", "memorization_rate", "gan_train_accuracy"),
    *("gan_test_accuracy", "classifier_accuracy"),
)
SCORES = {
    **dict.fromkeys(NAMES, float),
    "accuracy_ci95": INTERVAL,
    "balanced_accuracy_ci95": INTERVAL,
    "per_class": {str: {"precision": float, "recall": float, "f1": float, "support": COUNT}},
    "confusion": [[COUNT]],
    "note": str,
    "label": str,
    "comparison": {
        **{"metric": {"accuracy", "balanced_accuracy"}, "test": {"mcnemar", "permutation"}},
        **{"difference": float, "p_value": FRACTION, "examples": COUNT, "network_only": COUNT, "baseline_only": COUNT},
    },
}
METRICS = {"test": SCORES, "validation": SCORES, "baseline": {str: SCORES}}  # metrics.json
LABELS = [str]  # labels.json

# vocabulary.json and tokenizer.json: the tokenizers of dltoolkit.data.language.tokenizers
BYTE_LEVEL = {"type": {"ByteLevel"}, "add_prefix_space": bool, "trim_offsets": bool, "use_regex": bool}
_WHITE = r"\t\n\f\r \x{a0}\x{2009}\x{202f}\x{3000}"  # white space of KerasHub's tokenizers
SPACE_BEFORE_WORD = rf" (?=[^{_WHITE}])"
# The regular expressions by which byte-pair tokenizers divide a text; no others are executed
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "pipeline": rf"'s|'t|'re|'ve|'m|'ll|'d|[{_WHITE}]+[\n\r\t\f\x{{96c}}\x{{a0}}\x{{2009}}\x{{202f}}\x{{3000}}]"
    rf"| ?\p{{L}}+| ?\p{{N}}+| ?[^{_WHITE}\p{{L}}\p{{N}}]+",
    "last": r"[ \t\r\f\v\x{96c}\x{a0}\x{2009}\x{202f}\x{3000}]\z",
    "mark": r"\A\x{96c}\z",
    "qwen": _QWEN,
    "llama3": _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
}
PRE_TOKENIZER = {
    **BYTE_LEVEL,
    "type": {"Split", "ByteLevel"},
    "pattern": {"Regex": set(SPLITS.values())},
    "behavior": {"Isolated", "Removed"},
    "invert": bool,
}
BPE = {
    **dict.fromkeys(("truncation", "padding", "post_processor"), None),
    "normalizer": (None, {"type": {"Replace", "NFC"}, "pattern": {"Regex": {SPACE_BEFORE_WORD}}, "content": str}),
    "added_tokens": [{"id": COUNT, "content": str}],
    "pre_tokenizer": {**BYTE_LEVEL, "type": {"ByteLevel", "Sequence"}, "pretokenizers": [PRE_TOKENIZER]},
    "decoder": BYTE_LEVEL,
    "model": {
        "type": {"BPE"},
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"), None),
        "vocab": {str: COUNT},
        "merges": [[str, str]],
    },
}
TOKENIZER = {
    "tokenizer": {"char", "byte", "bpe", "word_piece", "sentencepiece", "keras_hub"},
    "characters": str,
    "definition": BPE,
    "config": {"class_name": str, "module": str, "registered_name": (str, None), "config": {str: ANYTHING}},
    "assets": {str: str},
    **dict.fromkeys(("lowercase", "strip_accents", "split_on_cjk", "pretrained_splits"), bool),
    "pieces": [str],
    **dict.fromkeys(("unknown", "suffix", "proto"), str),
}


class Invalid(ValueError):
    """A value does not fit its description. The message is a short reason, such as "'plan.epochs' must be …"."""


class Fields(dict):
    """An object of a JSON file. A field that the program needs and the file lacks is a UserError.

    Args:
        values: The fields.
        file: The file.
        name: Name of the object in the file, such as ``plan``; empty for the file itself.
    """

    def __init__(self, values: dict[str, Any], file: Path, name: str):
        super().__init__(values)
        self.file, self._name = file, name

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.file} is incomplete: it has no '{_join(self._name, key)}', which this needs.")


def max_bytes(path: Path) -> int:
    """Return the maximum size of a file of a run."""
    return SMALL_BYTES if path.name in SMALL_FILES else MAX_BYTES


def read_text(path: Path) -> str:
    """Return the contents of a text file of a run, which must be a regular file in UTF-8.

    Raises:
        OSError: If it cannot be opened, or is a link, a pipe or a device.
        Invalid: If it is too large or not UTF-8.
    """
    with files.open_regular(path, follow_links=False) as file:
        content = file.read((limit := max_bytes(path)) + 1)
    if len(content) > limit:
        raise Invalid(f"it has more than {limit >> 20} MiB")
    try:
        return content.decode("utf-8-sig")  # some editors of Windows write a byte order mark
    except UnicodeDecodeError:
        raise Invalid("it is not UTF-8 text") from None


def read(path: Path, description: Any, *, required: tuple[str, ...] = ()) -> Any:
    """Return the contents of a JSON file of a run, with objects as :class:`Fields`.

    Args:
        path: The file.
        description: What the file holds; see the head of this module.
        required: Fields that must be there.

    Raises:
        UserError: If the file is not a regular file, cannot be read, or does not fit the description.
    """
    return fitting(load(path, required=required), description, path)


def load(path: Path, *, required: tuple[str, ...] = ()) -> Any:
    """Return the contents of a JSON file of a run that are not checked against a description; see :func:`read`."""
    try:
        text = read_text(path)
        if text.count("{") + text.count("[") > MAX_CONTAINERS:
            raise Invalid(f"it has more than {MAX_CONTAINERS:,} objects and lists")
        value = strict_json.loads(text)
    except OSError as error:
        raise UserError(f"{path} is damaged or cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    missing = [name for name in required if not isinstance(value, dict) or name not in value]
    if missing:
        raise UserError(f"{path} is damaged: it has no {' and no '.join(missing)}.")
    return value


def fitting(value: Any, description: Any, file: Path) -> Any:
    """Return the contents of a JSON file with objects as :class:`Fields`, or raise a UserError if they do not fit."""
    try:
        return check(value, description, file)
    except Invalid as error:
        raise UserError(f"{file} is damaged: {error}.") from None


def check(value: Any, description: Any, file: Path, name: str = "", depth: int = 0) -> Any:
    """Return a value of a JSON file with the objects that have a description as :class:`Fields`.

    Args:
        value: The value.
        description: What it must be.
        file: The file, for messages.
        name: Name of the value in the file, such as ``plan.epochs``; empty for the file itself.
        depth: Number of objects and lists around the value.

    Raises:
        Invalid: If the value does not fit.
    """
    if depth > MAX_DEPTH:
        raise Invalid("nested too deeply")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise Invalid(f"'{name}' has a number of more than 63 bits")
    alternatives = description if isinstance(description, tuple) else (description,)
    fitting = [each for each in alternatives if _fits(value, each)]
    if not fitting:
        raise Invalid(f"{f'{name!r}' if name else 'it'} must be {_describe(description)}, not {_show(value)}")
    description = fitting[0]
    if description is ANYTHING:
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(each, dict | list | int):
                check(each, ANYTHING, file, name, depth + 1)
        return value
    if isinstance(value, dict):
        fields = {
            key: check(each, description.get(key, description.get(str, ANYTHING)), file, _join(name, key), depth + 1)
            for key, each in value.items()
        }
        return Fields(fields, file, name)
    if isinstance(value, list):
        elements = description
        if value and elements == [COUNT] and all(type(each) is int for each in value) and min(value) >= 0:
            return value if max(value) <= MAX_NUMBER else check(max(value), COUNT, file, name)  # fast, for confusion
        elements = elements * len(value) if len(elements) == 1 else elements
        return [
            check(each, element, file, f"{name}[{i}]", depth + 1)
            for i, (each, element) in enumerate(zip(value, elements, strict=True))
        ]
    return value


def _fits(value: Any, description: Any) -> bool:
    """Return whether a value is of the kind that a description without alternatives names, its elements aside."""
    if description is ANYTHING:
        return True
    if description is None:
        return value is None
    if isinstance(description, dict):
        return isinstance(value, dict)
    if isinstance(description, list):
        return isinstance(value, list) and (len(description) == 1 or len(value) == len(description))
    if isinstance(description, set | frozenset):
        return isinstance(value, str) and value in description
    if isinstance(description, Text):
        return isinstance(value, str) and description.fits(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(description, Number):
        fits = is_number and description.minimum <= value <= description.maximum
        return fits and (isinstance(value, int) or not description.whole)
    if description is float:
        return is_number
    return type(value) is description


def _describe(description: Any) -> str:
    """Return a description in words."""
    if isinstance(description, tuple):
        return " or ".join(dict.fromkeys(map(_describe, description)))
    if isinstance(description, Number):
        kind = "a whole number" if description.whole else "a number"
        upper = f" to {description.maximum:,}" if description.maximum < MAX_NUMBER else " on"
        return f"{kind} from {description.minimum:g}{upper}"
    if isinstance(description, Text):
        return description.words
    if isinstance(description, set | frozenset):
        return " or ".join(sorted(description))
    if isinstance(description, list) and len(description) > 1:
        return f"a list of {len(description)}"
    if isinstance(description, dict | list):
        return "an object" if isinstance(description, dict) else "a list"
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", None: "null"}
    return names[description]


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value):,}"
    if isinstance(value, str):
        return f"the text '{value[:SHOWN_CHARACTERS]}'"
    return {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else str(value)


def _join(name: str, key: str) -> str:
    return f"{name}.{key[:SHOWN_CHARACTERS]}" if name else key[:SHOWN_CHARACTERS]
