"""Devices, the one training loop, checkpoints and progress."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=["checkpoint", "fit", "frozen", "muon", "optimizer", "starting", "strategy", "transfer"],
    plain=["plan", "progress"],
)
