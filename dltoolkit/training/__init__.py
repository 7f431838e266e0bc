"""Devices, the one training loop, checkpoints and progress."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=[
        *(
            "checkpoint",
            "distributed",
            "fit",
            "frozen",
            "muon",
            "optimizer",
            "pace",
            "starting",
            "strategy",
            "transfer",
            "watcher",
        ),
    ],
    plain=["cluster", "launch", "meeting", "plan", "progress"],
)
