"""What the kind of a run decides about its export: preprocessing, comparison, example and the data for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import data_object, export, finetuning, progress
from dltoolkit.data.language import tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.errors import UserError
from dltoolkit.evaluation import text_generation
from dltoolkit.export import card, exported, graphs, keras_hub, steps

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.run import Run


@dataclass(frozen=True)
class Parts:
    """What the kind of a run decides.

    Attributes:
        kind: One of ``folder.KINDS``.
        steps: The contents of preprocessing.json.
        compare: Compares an export with the run.
        example: Template of example.py, its values, the command that runs it and what it needs.
        representative: Inputs that decide the ranges of activations in int8, or None.
        encoder: What writes the file of the vocabulary or the tokenizer with its ``save``, or None.
    """

    kind: str
    steps: dict[str, Any]
    compare: Callable[[exported.Export], export.parity.Parity]
    example: tuple[str, dict[str, Any], str, str]
    representative: np.ndarray | None = None
    encoder: Any = None


class Source:
    """The data of a run, which may have moved.

    Args:
        run: The run.
        data: Where they are now; None for where they were.
    """

    def __init__(self, run: Run, data: Any):
        self._run, self.given = run, data is not None
        self._config = run.config.resolve(data=data_object.wrap(data)) if self.given else run.config

    def read(self, *more: Any) -> Any:
        """Return the data as the recipe of the run reads them, after a check that they are those of the run.

        Args:
            more: Further arguments of the recipe's ``build_data``.

        Raises:
            UserError: If they cannot be read, or are other data.
        """
        run, config = self._run, self._config
        try:
            read = finetuning.tasks.read_data(run, config, *more)
        except UserError as error:
            if self.given:
                raise
            reason = str(error).rstrip(".")
            raise UserError(
                f"An export is compared with its run on the data of the run, which cannot be read ({reason}): if they "
                "have moved, give their new place with --data."
            ) from None
        description = read.describe()
        if not self.given:
            run.check_data(description)
        elif description["fingerprint"] != run.info["data"]["fingerprint"]:
            raise UserError(
                f"{description['source']} holds other data than those that {run.path} was trained on: give the data of "
                "the run, unchanged, with --data."
            )
        else:
            progress.note(f"{description['source']} holds the data that the run was trained on, unchanged.")
        return read


def of_run(run: Run, quantize: str, source: Source) -> Parts:
    """Return the parts of the export of a run.

    Args:
        run: The run.
        quantize: Quantization of the export.
        source: Its data.

    Raises:
        UserError: If the data cannot be read or are others, or no tokenizer can do without TensorFlow.
    """
    if run.has_verb("stream_text"):
        return _language_parts(run, quantize, source)
    if not run.has_verb("predictor"):
        if source.given:
            raise UserError("--data has no effect on a generator of images, which needs none: leave it out.")
        return _generator_parts(run, quantize)
    splits, predictor = source.read(), run.verb("predictor")(run)
    if hasattr(splits, "texts"):
        return _text_parts(run, quantize, splits, predictor.encoder)
    representative = None
    if quantize == "int8" and _is_convolutional(run.model):
        rows = splits.train[:: -(-len(splits.train) // export.quantization.REPRESENTATIVE)]
        representative = splits.images[rows]
    preprocessing = steps.of_images(run)
    example = {"mode": preprocessing["resize"]["mode"], "is_8_bit": "whites" in preprocessing}
    return Parts(
        "image-classifier",
        preprocessing,
        lambda each: export.parity.classifier(run, each, splits, quantize),
        ("image", example, "python example.py IMAGE", "numpy, pillow and the runtime"),
        representative,
    )


def _text_parts(run: Run, quantize: str, splits: TextSplits, encoder: TextEncoder) -> Parts:
    if isinstance(encoder, encoders.KerasHubEncoder):
        encoder = keras_hub.encoder_without_tensorflow(encoder)
    if isinstance(encoder, encoders.VocabularyEncoder):
        kind = "words" if encoder.max_length else "bag"
    else:
        kind = encoder.tokenizer.to_json()["tokenizer"]
    return Parts(
        "text-classifier",
        steps.of_texts(encoder),
        lambda each: export.parity.classifier(run, each, splits, quantize),
        (
            "text",
            {"kind": kind, "needs": card.NEEDS.get(kind, ""), **_letters(encoder)},
            "python example.py TEXT",
            f"numpy{card.NEEDS.get(kind, '')} and the runtime",
        ),
        encoder=encoder,
    )


def _letters(encoder: TextEncoder) -> dict[str, bool]:
    """Return what example.py must know of a pretrained encoder."""
    is_pretrained = isinstance(encoder, encoders.PretrainedEncoder)
    source = encoder.tokenizer if is_pretrained and hasattr(encoder.tokenizer, "split_on_cjk") else encoder
    options = {name: getattr(source, name, False) for name in ("lowercase", "strip_accents")}
    return {"pretrained": is_pretrained, **options}


def _language_parts(run: Run, quantize: str, source: Source) -> Parts:
    original = text_generation.load_tokenizer(run)
    corpus, tokenizer = source.read(original), original
    if isinstance(original, tokenizers.KerasHubTokenizer):
        tokenizer = keras_hub.without_tensorflow(original)
    kind, graph = tokenizer.to_json()["tokenizer"], graphs.of_run(run, None)
    return Parts(
        "text-generator",
        steps.of_language(run, tokenizer, graph.empty_state, graph.state),
        lambda each: export.parity.language_model(run, each, corpus, quantize),
        (
            "language",
            {"kind": kind, "needs": card.NEEDS.get(kind, ""), "state": bool(graph.state)},
            "python example.py PROMPT",
            f"numpy{card.NEEDS.get(kind, '')} and the runtime",
        ),
        encoder=encoders.TokenEncoder(tokenizer, 0),
    )


def _generator_parts(run: Run, quantize: str) -> Parts:
    return Parts(
        "image-generator",
        steps.of_generator(run),
        lambda each: export.parity.generator(run, each, quantize),
        ("generator", {}, "python example.py COUNT OUT", "numpy, pillow and the runtime"),
    )


def _is_convolutional(model: keras.Model) -> bool:
    from dltoolkit.models import surgery

    return any(type(layer).__name__ == "Conv2D" for layer in surgery.flatten_layers(model))
