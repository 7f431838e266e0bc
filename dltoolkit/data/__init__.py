"""What ``--data`` means, honest splits, and tf.data pipelines."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=["augment", "batches", "images", "pipeline", "text_pipeline"],
    plain=[
        *("arrays", "catalogue", "decode", "labelled", "listing", "picture_listing", "pixels", "published"),
        *("scan", "source", "split", "store", "tables", "text", "text_listing", "vocabulary"),
    ],
)
