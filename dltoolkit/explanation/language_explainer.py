"""The explainer of a language model: how much each token of a text surprises it, and which words it builds on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dltoolkit import lazy
from dltoolkit.answers import Answers
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.evaluation import prediction, text_generation
from dltoolkit.evaluation.text_predictor import TextPredictor
from dltoolkit.explanation import language_reading
from dltoolkit.explanation.explanation import DIGITS, Explanation
from dltoolkit.explanation.language_reading import LanguageReader, TokenizedText
from dltoolkit.explanation.methods import AUTO

METHOD = "leave-one-out"  # of the words before a token
MAX_CHARACTERS = 20_000  # of a text that are explained, from its beginning


@dataclass(frozen=True, kw_only=True)
class LanguageExplanation(Explanation):
    """What a language model expects of a text, or the reason why that is not known.

    The values are the bits of each token, float32 (tokens,); ``details`` holds the fields of its JSON.
    """

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads: input and error, or the tokens and the words that some of them rest on."""
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        return {"input": self.input, "method": self.method, **self.details}


class Reader(TextPredictor):
    """The reading of texts, which is that of a classifier of texts, without a model."""

    def __init__(self) -> None:
        self.encoding = None


class LanguageExplainer:
    """What explains a language model, from a run or an export.

    Args:
        run: A run of text-generator, or an export of one.
    """

    kind = "language"

    def __init__(self, run: Answers):
        self.run, self.predictor = run, Reader()

    @functools.cached_property
    def reader(self) -> LanguageReader:
        """The model and its tokenizer."""
        tokenizer = text_generation.load_tokenizer(self.run)
        context_length = self.run.info["resolved"]["context_length"]
        return LanguageReader(text_generation.load_decoder(self.run, tokenizer), tokenizer, context_length)

    @lazy.quiet_tensorflow()
    def explain(self, inputs: Any, **options: Any) -> LanguageExplanation | list[LanguageExplanation]:
        """Explain one text or many; one that cannot be read has its ``error``. Options: see :meth:`stream`."""
        items, single = self.predictor.split(inputs)
        explanations = list(self.stream(items, **options))
        return explanations[0] if single else explanations

    def stream(
        self, items: Iterable[Any], *, method: str = AUTO, label: str | None = None, data: Any = None
    ) -> Iterator[LanguageExplanation]:
        """Yield the explanation of each text as it is ready.

        Args:
            items: The texts.
            method: ``auto`` or ``leave-one-out``.
            label, data: None, because a language model has neither classes nor measured methods.

        Raises:
            UserError: If another option is given.
        """
        if method not in (AUTO, METHOD):
            raise UserError(f"A language model cannot have --method={method}: use --method={METHOD}, or leave it out.")
        if label is not None:
            raise UserError("--class has no effect on a language model, which has no classes: leave it out.")
        if data is not None:
            raise UserError("--data has no effect on a language model, which has a single method: leave it out.")
        for number, item in enumerate(items):
            if isinstance(item, InvalidInput):
                yield LanguageExplanation(input=item.input, kind=self.kind, error=item.error)
                continue
            name = prediction.name_of(item, number)
            try:
                text = self.predictor.read(item)
                yield self.of_text(text, text if isinstance(item, str) else name)
            except UserError as error:
                yield LanguageExplanation(input=name, kind=self.kind, error=str(error))

    def resolve(self, method: str, data: Any = None, **options: Any) -> Any:
        """Raise a UserError: there are no predictions that could be explained."""
        return self.run.verb("predict")

    def read_splits(self) -> Any:
        """Raise a UserError: the report of a language model explains no texts of its own."""
        raise UserError("A language model explains the texts that you give: name an INPUT.")

    def of_text(self, text: str, name: str) -> LanguageExplanation:
        """Return the explanation of a text.

        Args:
            text: The text.
            name: Its name.

        Raises:
            UserError: If it has a single token, which nothing predicts.
        """
        text, rest = text[:MAX_CHARACTERS], text[MAX_CHARACTERS:]
        read = language_reading.tokenize(text, self.reader.tokenizer)
        if len(read.tokens) < 2:
            raise UserError("a single token, which nothing predicts: give more text")
        bits, alternatives = self.reader.surprisals(read.tokens)
        listed = [
            {
                "text": text[start:end],
                "start": start,
                "end": end,
                "bits": round(float(value), DIGITS) if number else None,
                "alternatives": each,
            }
            for number, ((start, end), value, each) in enumerate(zip(read.spans, bits, alternatives, strict=True))
        ]
        positions = {"most surprising": int(bits.argmax()) or 1, "last": len(read.tokens) - 1}
        details: dict[str, Any] = {
            "bits": round(float(bits.sum()), DIGITS),
            "bits_per_character": round(float(bits.sum()) / len(text), DIGITS),
            "context_length": self.reader.context_length,
            "tokens": listed,
            "influences": [self._influence(text, read, *each, listed) for each in positions.items()],
        }
        if unknown := self.reader.tokenizer.unknown(text):
            details["unknown"] = unknown
        if rest:
            details["unread"] = {"start": len(text), "end": len(text) + len(rest)}
        return LanguageExplanation(
            input=name,
            kind=self.kind,
            values=bits.astype(np.float32),
            method=METHOD,
            replacement="nothing",
            text=text,
            spans=read.spans,
            details=details,
        )

    def _influence(
        self, text: str, read: TokenizedText, name: str, position: int, listed: list[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return which words before a token made it likelier or less likely, for JSON."""
        numbers, values = self.reader.influences(read, position)
        spans = [
            (read.word_spans[number][0], min(read.word_spans[number][1], read.spans[position][0])) for number in numbers
        ]
        words = [
            {"text": text[start:end], "start": start, "end": end, "bits": round(float(value), DIGITS)}
            for (start, end), value in zip(spans, values, strict=True)
            if end > start
        ]
        token = {key: listed[position][key] for key in ("text", "start", "end", "bits")}
        return {"which": name, "token": token, "words": words}
