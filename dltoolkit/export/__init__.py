"""Export of a run to a file that another runtime answers from, and the answers from such a file."""

import os

from dltoolkit.lazy import submodules

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported

__getattr__, __dir__ = submodules(__name__, __path__)
