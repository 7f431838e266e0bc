"""What ``--data`` means, honest splits, and tf.data pipelines."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=["augment", "batches", "images", "pipeline", "text_pipeline", "token_pipeline"],
    plain=[
        *(
            "arrays",
            "catalogue",
            "decode",
            "encoders",
            "kinds",
            "labelled",
            "listing",
            "picture_listing",
            "pixels",
            "published",
        ),
        *("running_text", "scan", "source", "split", "store", "tables", "text", "text_listing", "tokens", "vocabulary"),
    ],
)
