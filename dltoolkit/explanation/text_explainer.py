"""The explainer of a classifier of texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dltoolkit import explanation, progress
from dltoolkit.data.text import dataset
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.evaluation.prediction import UNKNOWN_INPUT
from dltoolkit.explanation import answering, text_faithfulness, text_perturbation, text_reading
from dltoolkit.explanation.explainer import Explainer
from dltoolkit.explanation.explanation import Explanation
from dltoolkit.explanation.text_reading import ReadText

MAX_TOKENS = 1 << 15  # tokens that the model reads together, which bounds the memory
Attributor = Callable[[ReadText, Sequence[int]], tuple[np.ndarray, dict[str, Any]]]


class TextExplainer(Explainer):
    """What explains the answers of a classifier of texts, from a run or an export."""

    kind = "text"

    @property
    def available(self) -> list[str]:
        return list(self._functions)

    @functools.cached_property
    def _functions(self) -> dict[str, Attributor]:
        """The methods that the model can have: functions from a text and targets to values and fields for JSON."""
        functions: dict[str, Attributor] = {}
        encoder, perturbation = self.predictor.encoder, text_perturbation
        reads_bags = isinstance(encoder, VocabularyEncoder) and encoder.max_length is None
        if reads_bags:
            functions["n-grams"] = lambda read, targets: perturbation.ngram_weights(read, targets, self.answer)
        functions["leave-one-out"] = lambda read, targets: perturbation.leave_one_out(read, targets, self.answer)
        if self.has_gradient and not reads_bags:
            gradients = explanation.text_gradients.IntegratedGradients(self.model, encoder.mask_token_id or 0)
            if gradients.has_embedding:
                functions["integrated-gradients"] = gradients.attribute
        return functions

    def answer(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the logits float64 (n, classes) of token IDs (n, time)."""
        return answering.logits(self.model, token_ids, max(1, MAX_TOKENS // token_ids.shape[1]))

    def logits(self, values: Sequence[str]) -> np.ndarray:
        return self.answer(self.predictor.stack(list(values)))

    def word_by_word(self, text: str) -> ReadText:
        """Return a text as the model reads it."""
        return text_reading.read(text, self.predictor.encoder)

    def compute(self, method: str, value: str, targets: Sequence[int]) -> tuple[np.ndarray, Mapping[str, Any]]:
        read = self.word_by_word(value)
        values, details = self._functions[method](read, targets)
        return values, {
            "text": value,
            "spans": read.spans,
            "details": {**text_reading.details(read), **details},
        }

    def faithfulness(
        self, values: Sequence[str], attributions: Sequence[np.ndarray], targets: Sequence[int]
    ) -> dict[str, np.ndarray]:
        figures = text_faithfulness.measure(self, values, attributions, targets)
        return {"score": figures["comprehensiveness"] - figures["sufficiency"], **figures}

    def read_labeled(self, data: Any) -> list[str]:
        texts, _, _ = dataset.labeled(data, self.labels, self.run.config, note=progress.note, warn=progress.warn)
        return list(texts.texts)

    def of_value(self, value: str, method: str, target: int | None = None) -> Explanation:
        """Return the explanation of a text; one without a word that the model knows has no class."""
        if self.predictor.is_known(self.predictor.stack([value]))[0]:
            return super().of_value(value, method, target)
        read = self.word_by_word(value)
        return Explanation(
            input="",
            kind=self.kind,
            label=UNKNOWN_INPUT,
            values=np.zeros(len(read.spans), np.float32),
            method=method,
            text=value,
            spans=read.spans,
            details=text_reading.details(read),
        )
