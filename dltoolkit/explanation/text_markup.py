"""Texts with colored words, for pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_STRENGTH = 0.04  # of the strongest word of a text, below which a word has no color
MAX_OPACITY = 0.75  # of the strongest color, on which the text can still be read
LISTED = 8  # words for the class, and words against it, that are listed
LONG = 2000  # characters of a text above which the explanation of the runner-up is folded
MIRRORED = (
    0.01  # of the strongest word, up to which the words of the runner-up are those of the class with another sign
)


@dataclass(frozen=True)
class Mark:
    """A part of a text.

    Attributes:
        text: The part.
        kind: "for", "against", "unread" or, for a part without a mark, "".
        opacity: Opacity of its color, 0 to 1.
        title: Its value.
    """

    text: str
    kind: str = ""
    opacity: float = 0.0
    title: str = ""


def describe(explanation: Any) -> dict[str, Any]:
    """Return what a page shows of the :class:`Explanation` of a text.

    Returns:
        The marks of the text for the class, those for the runner-up (empty if they only mirror the others), the words
        with the largest values for and against the class, and whether the text is long.
    """
    values, other = explanation.values, explanation.runner_up_values
    scale = max([float(np.abs(each).max(initial=0)) for each in (values, other) if each is not None])
    mirrored = other is None or np.abs(values + other).max(initial=0) <= MIRRORED * scale
    return {
        "marks": list(marks(explanation, values, scale)),
        "runner_up_marks": [] if mirrored else list(marks(explanation, other, scale)),
        "for": _strongest(explanation, 1),
        "against": _strongest(explanation, -1),
        "long": len(explanation.text) > LONG,
    }


def marks(explanation: Any, values: np.ndarray, scale: float) -> Iterator[Mark]:
    """Yield the parts of a text in order.

    Args:
        explanation: The explanation.
        values: The value of each word, float (words,).
        scale: The value of the word with the strongest color.
    """
    text, position = explanation.text, 0
    parts = [(start, end, float(value)) for (start, end), value in zip(explanation.spans, values.tolist(), strict=True)]
    if unread := explanation.details.get("unread"):
        parts.append((unread["start"], unread["end"], None))
    for start, end, value in sorted(parts, key=lambda part: part[0]):
        start = max(start, position)  # characters that belong to two words
        if end <= start:
            continue
        if start > position:
            yield Mark(text[position:start])
        position = end
        if value is None:
            yield Mark(text[start:end], "unread", title="not read by the model")
            continue
        yield strength_mark(text[start:end], value, scale)
    if position < len(text):
        yield Mark(text[position:])


def strength_mark(text: str, value: float, scale: float, unit: str = "") -> Mark:
    """Return a word with its color.

    Args:
        text: The word.
        value: Its value.
        scale: The value of the word with the strongest color.
        unit: What follows the value.
    """
    strength = abs(value) / scale if scale else 0.0
    kind = "" if strength < MIN_STRENGTH else "for" if value > 0 else "against"
    return Mark(text, kind, round(MAX_OPACITY * strength, 2), f"{value:+.3g}{unit}")


def strongest_words(words: Sequence[dict[str, Any]], sign: int, count: int) -> list[dict[str, Any]]:
    """Return the words with the largest values of a sign, the largest first; equal words are one with their sum.

    Words whose values are much smaller than the largest one are left out.

    Args:
        words: Words with ``text`` and ``value``.
        sign: 1 for words that speak for the class, -1 for those against it.
        count: Number of words.
    """
    totals: dict[str, float] = {}
    for word in words:
        totals[word["text"].casefold()] = totals.get(word["text"].casefold(), 0.0) + word["value"]
    least = MIN_STRENGTH * max(map(abs, totals.values()), default=0.0)
    ranked = sorted(((sign * value, text) for text, value in totals.items() if sign * value > least), reverse=True)
    return [{"text": text, "value": round(sign * value, 4)} for value, text in ranked[:count]]


def _strongest(explanation: Any, sign: int) -> list[dict[str, Any]]:
    return strongest_words(explanation.words, sign, LISTED)
