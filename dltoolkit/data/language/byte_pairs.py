"""KerasHub's byte-pair tokenizers in the tokenizers library, which divides texts into words as in pretraining.

KerasHub 0.32 has two divisions of its own, and neither is that of the networks: its calls take a regular expression
literally and so divide nothing, and its pipelines drop the Devanagari digit six and divide white space otherwise.
"""

from __future__ import annotations

from typing import Any

from dltoolkit.errors import UserError
from dltoolkit.run_schema import SPACE_BEFORE_WORD, SPLITS

MARK = "\u096c"  # KerasHub's pipelines write this digit before a space that belongs to the next word
OWN = ("CLIPTokenizer", "SAM3Tokenizer", "MistralTekkenTokenizer")  # classes that divide texts rightly by themselves
# Normalizer and regular expression in SPLITS by the class of KerasHub; "" stands for the expression of GPT-2
DIVISIONS = {
    **dict.fromkeys(
        (
            "BytePairTokenizer",
            "GPT2Tokenizer",
            "RobertaTokenizer",
            "BartTokenizer",
            "OPTTokenizer",
            "BLIP2OPTTokenizer",
        ),
        ("", ""),
    ),
    "GPTNeoXTokenizer": ("NFC", ""),
    **dict.fromkeys(("Llama3Tokenizer", "SmolLM3Tokenizer"), ("", "llama3")),
    **dict.fromkeys(("QwenTokenizer", "QwenMoeTokenizer", "Qwen3Tokenizer", "Qwen3MoeTokenizer"), ("NFC", "qwen")),
}


def library() -> Any:
    """Return the module ``tokenizers``, which is an extra.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UserError("Byte-pair encoding needs the tokenizers package: pip install 'dltoolkit[bpe]'.") from None
    return tokenizers


def pretrained(tokenizer: Any) -> Any | None:
    """Return the counterpart of a tokenizer of KerasHub that divides texts as in the pretraining of its networks.

    Args:
        tokenizer: A ``keras_hub.tokenizers.Tokenizer``.

    Returns:
        A ``tokenizers.Tokenizer``, or None if that of KerasHub does so itself, as all but byte-pair tokenizers do.

    Raises:
        UserError: If the division is not known.
    """
    name = type(tokenizer).__name__
    if not hasattr(tokenizer, "merges") or name in OWN:
        return None
    if name not in DIVISIONS:
        raise UserError(
            f"KerasHub's {name} divides texts into other words than the pretraining of its networks did, so that they "
            "would read wrong tokens: use another preset, such as a GPT-2 or RoBERTa."
        )
    normalizer, split = DIVISIONS[name]
    made = _byte_pairs(tokenizer)
    if normalizer:
        made.normalizer = getattr(library().normalizers, normalizer)()
    made.pre_tokenizer = _pre_tokenizer(tokenizer, [_split(split)] if split else [], use_regex=not split)
    return made


def literal(tokenizer: Any) -> Any:
    """Return the counterpart of a byte-pair tokenizer of KerasHub that divides nothing, as its calls do."""
    made = _byte_pairs(tokenizer)
    made.pre_tokenizer = _pre_tokenizer(tokenizer, [])
    return made


def pipeline(tokenizer: Any) -> Any:
    """Return the counterpart of a byte-pair tokenizer of KerasHub that divides texts as its pipelines do."""
    made = _byte_pairs(tokenizer)
    made.normalizer = library().normalizers.Replace(library().Regex(SPACE_BEFORE_WORD), f"{MARK} ")
    steps = [_split("pipeline"), _split("last"), _split("mark", "removed")]
    made.pre_tokenizer = _pre_tokenizer(tokenizer, steps)
    return made


def _byte_pairs(tokenizer: Any) -> Any:
    """Return a ``tokenizers.Tokenizer`` with the tokens of one of KerasHub."""
    package = library()
    pairs = [tuple(merge.split(" ")) for merge in tokenizer.merges if "#version:" not in merge]
    made = package.Tokenizer(package.models.BPE(dict(tokenizer.vocabulary), pairs))
    # Pairs of bytes contain no space, so that tokens with one, such as the indentations of GPT-NeoX, were added
    added = {*(tokenizer.unsplittable_tokens or ()), *(token for token in tokenizer.vocabulary if " " in token)}
    made.add_special_tokens(sorted(added))
    made.decoder = package.decoders.ByteLevel()
    return made


def _pre_tokenizer(tokenizer: Any, steps: list[Any], *, use_regex: bool = False) -> Any:
    package = library()
    levels = package.pre_tokenizers.ByteLevel(add_prefix_space=tokenizer.add_prefix_space, use_regex=use_regex)
    return package.pre_tokenizers.Sequence([*steps, levels]) if steps else levels


def _split(name: str, behavior: str = "isolated") -> Any:
    return library().pre_tokenizers.Split(library().Regex(SPLITS[name]), behavior)
