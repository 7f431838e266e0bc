"""Texts with the surprisal of their tokens in color, for pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dltoolkit.explanation.text_markup import MAX_OPACITY, Mark, strength_mark, strongest_words
from dltoolkit.formatting import percent

MIN_BITS, MAX_BITS = 1.0, 10.0  # surprisal without a color, and with the strongest color
LISTED = 10  # most surprising tokens that are listed
BEFORE = 30  # characters before a token that are listed with it
SHOWN = 600  # characters before a token whose words are shown


def describe(explanation: Any) -> dict[str, Any]:
    """Return what a page shows of the :class:`LanguageExplanation` of a text.

    Returns:
        The marks of the text, the most surprising tokens, and what some tokens rest on.
    """
    text, details = explanation.text, explanation.details
    scored = [token for token in details["tokens"] if token["bits"] is not None]
    surprising = sorted(scored, key=lambda token: -token["bits"])[:LISTED]
    return {
        "marks": list(_marks(text, details["tokens"])),
        "surprising": [
            {
                "before": text[max(0, token["start"] - BEFORE) : token["start"]],
                "token": visible_spaces(token["text"]),
                "bits": token["bits"],
                "alternatives": [{**each, "text": visible_spaces(each["text"])} for each in token["alternatives"]],
            }
            for token in surprising
        ],
        "influences": [_influence(text, each) for each in details["influences"]],
    }


def visible_spaces(text: str) -> str:
    """Return a token whose white space can be seen."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _marks(text: str, tokens: list[Mapping[str, Any]]) -> Iterator[Mark]:
    position, plain = 0, ""
    for token in tokens:
        start, end, bits = max(position, token["start"]), token["end"], token["bits"] or 0.0
        if end <= start:  # a part of the character of the token before
            continue
        plain, position = plain + text[position:start], end
        if bits < MIN_BITS:
            plain += text[start:end]
            continue
        if plain:
            yield Mark(plain)
            plain = ""
        expected = ", ".join(
            f"{visible_spaces(each['text'])} {percent(each['probability'])}" for each in token["alternatives"]
        )
        opacity = round(MAX_OPACITY * min(1.0, bits / MAX_BITS), 2)
        yield Mark(text[start:end], "surprise", opacity, f"{bits:.1f} bits; expected: {expected}")
    if plain or position < len(text):
        yield Mark(plain + text[position:])


def _influence(text: str, influence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words before a token with their marks, the token after them, and the words that matter most."""
    token, words = influence["token"], influence["words"]
    scale = max((abs(word["bits"]) for word in words), default=0.0)
    shown = [word for word in words if word["start"] >= token["start"] - SHOWN]
    marks, position = [], shown[0]["start"] if shown else token["start"]
    for word in shown:
        if word["start"] > position:
            marks.append(Mark(text[position : word["start"]]))
        if word["end"] > max(position, word["start"]):
            part = text[max(position, word["start"]) : word["end"]]
            marks.append(strength_mark(part, word["bits"], scale, " bits"))
        position = max(position, word["end"])
    if marks:
        marks.append(Mark(text[position : token["start"]]))
        marks.append(Mark(text[max(position, token["start"]) : token["end"]], "target", title="the token"))
    valued = [{"text": word["text"], "value": word["bits"]} for word in words]
    return {
        "which": influence["which"],
        "token": visible_spaces(token["text"]),
        "bits": token["bits"],
        "marks": marks,
        "for": strongest_words(valued, 1, LISTED),
        "against": strongest_words(valued, -1, LISTED),
    }
