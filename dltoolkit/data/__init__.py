"""What ``--data`` means, honest splits, and tf.data pipelines."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, keras=["augment", "batches", "images"], plain=["source", "split"])
