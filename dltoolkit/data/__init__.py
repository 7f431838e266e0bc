"""What ``--data`` means, honest splits, and tf.data pipelines."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=["augment", "batches", "images", "pipeline"],
    plain=["arrays", "catalogue", "decode", "listing", "published", "scan", "source", "split", "store", "tables"],
)
