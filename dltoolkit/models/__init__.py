"""Network families as plain Keras functional models: raw inputs in, logits out."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=[
        "backbones",
        "decoder_layers",
        "fused",
        "diff_augment",
        "gan",
        "gan_networks",
        "gpt",
        "picture_layers",
        "replicas",
        "sampling",
        "text",
        "text_backbones",
        "text_layers",
        "vision",
    ],
    plain=["architectures", "hub"],
)
