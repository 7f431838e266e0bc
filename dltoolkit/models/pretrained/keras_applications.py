"""The networks of ``keras.applications``: names, sizes, input scaling and weights files.

This module does not import Keras, so that ``dltoolkit list backbones`` answers at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltoolkit import files
from dltoolkit.errors import UserError


@dataclass(frozen=True)
class Application:
    """One architecture.

    Attributes:
        function: Name of the function in ``keras.applications``.
        image_size: Side in pixels of the images that the ImageNet weights were trained on.
        min_image_size: Smallest side in pixels that the network accepts.
        million_parameters: Number of parameters in millions, without the top.
        preprocessing: Scaling of the pixels, a mode of ``keras.applications.imagenet_utils.preprocess_input``; "" if
            the network scales its inputs itself.
        options: Further arguments of the function.
    """

    function: str
    image_size: int
    min_image_size: int
    million_parameters: float
    preprocessing: str = ""
    options: dict[str, Any] = field(default_factory=dict)


APPLICATIONS = {
    "MobileNet": Application("MobileNet", 224, 32, 3.23, "tf"),
    "MobileNet-0.25": Application("MobileNet", 224, 32, 0.22, "tf", {"alpha": 0.25}),
    "MobileNet-0.5": Application("MobileNet", 224, 32, 0.83, "tf", {"alpha": 0.5}),
    "MobileNetV2": Application("MobileNetV2", 224, 32, 2.26, "tf"),
    "MobileNetV2-0.35": Application("MobileNetV2", 224, 32, 0.41, "tf", {"alpha": 0.35}),
    "MobileNetV2-0.5": Application("MobileNetV2", 224, 32, 0.71, "tf", {"alpha": 0.5}),
    "MobileNetV3Small": Application("MobileNetV3Small", 224, 32, 0.94),
    "MobileNetV3Large": Application("MobileNetV3Large", 224, 32, 3),
    "NASNetMobile": Application("NASNetMobile", 224, 32, 4.27, "tf"),
    "NASNetLarge": Application("NASNetLarge", 331, 32, 84.92, "tf"),
    "EfficientNetB0": Application("EfficientNetB0", 224, 32, 4.05),
    "EfficientNetB1": Application("EfficientNetB1", 240, 32, 6.58),
    "EfficientNetB2": Application("EfficientNetB2", 260, 32, 7.77),
    "EfficientNetB3": Application("EfficientNetB3", 300, 32, 10.78),
    "EfficientNetB4": Application("EfficientNetB4", 380, 32, 17.67),
    "EfficientNetB5": Application("EfficientNetB5", 456, 32, 28.51),
    "EfficientNetB6": Application("EfficientNetB6", 528, 32, 40.96),
    "EfficientNetB7": Application("EfficientNetB7", 600, 32, 64.1),
    "EfficientNetV2B0": Application("EfficientNetV2B0", 224, 32, 5.92),
    "EfficientNetV2B1": Application("EfficientNetV2B1", 240, 32, 6.93),
    "EfficientNetV2B2": Application("EfficientNetV2B2", 260, 32, 8.77),
    "EfficientNetV2B3": Application("EfficientNetV2B3", 300, 32, 12.93),
    "EfficientNetV2S": Application("EfficientNetV2S", 384, 32, 20.33),
    "EfficientNetV2M": Application("EfficientNetV2M", 480, 32, 53.15),
    "EfficientNetV2L": Application("EfficientNetV2L", 480, 32, 117.75),
    "DenseNet121": Application("DenseNet121", 224, 32, 7.04, "torch"),
    "DenseNet169": Application("DenseNet169", 224, 32, 12.64, "torch"),
    "DenseNet201": Application("DenseNet201", 224, 32, 18.32, "torch"),
    "ResNet50": Application("ResNet50", 224, 32, 23.59, "caffe"),
    "ResNet101": Application("ResNet101", 224, 32, 42.66, "caffe"),
    "ResNet152": Application("ResNet152", 224, 32, 58.37, "caffe"),
    "ResNet50V2": Application("ResNet50V2", 224, 32, 23.56, "tf"),
    "ResNet101V2": Application("ResNet101V2", 224, 32, 42.63, "tf"),
    "ResNet152V2": Application("ResNet152V2", 224, 32, 58.33, "tf"),
    "Xception": Application("Xception", 299, 71, 20.86, "tf"),
    "InceptionV3": Application("InceptionV3", 299, 75, 21.8, "tf"),
    "InceptionResNetV2": Application("InceptionResNetV2", 299, 75, 54.34, "tf"),
    "VGG16": Application("VGG16", 224, 32, 14.71, "caffe"),
    "VGG19": Application("VGG19", 224, 32, 20.02, "caffe"),
    "ConvNeXtTiny": Application("ConvNeXtTiny", 224, 32, 27.82),
    "ConvNeXtSmall": Application("ConvNeXtSmall", 224, 32, 49.45),
    "ConvNeXtBase": Application("ConvNeXtBase", 224, 32, 87.57),
    "ConvNeXtLarge": Application("ConvNeXtLarge", 224, 32, 196.23),
    "ConvNeXtXLarge": Application("ConvNeXtXLarge", 224, 32, 348.15),
}


def find(name: str) -> str | None:
    """Return the key of :data:`APPLICATIONS` that equals a name up to case and punctuation, or None."""
    return next((key for key in APPLICATIONS if _normalize(key) == _normalize(name)), None)


def check_weights_file(path: Path) -> None:
    """Check the kind of a weights file, and its SHA-256 hash if one is given, before it is opened.

    Hashes are read from ``SHA256SUMS`` or ``FILE.sha256`` in the same folder, in the format of ``sha256sum``.

    Raises:
        UserError: If the file is missing, is not a weights file, or has another hash.
    """
    if not os.path.isfile(path):
        raise UserError(f"There is no weights file {path}.")
    if path.suffix not in (".h5", ".keras"):
        raise UserError(
            f"{path} is not a Keras weights file (.h5); other files are not opened, because they might run code."
        )
    for sums in (path.with_name("SHA256SUMS"), path.with_name(f"{path.name}.sha256")):
        for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else ():
            expected, _, name = line.partition(" ")
            if name.lstrip(" *").removeprefix("./") == path.name and expected.lower() != files.sha256(path):
                raise UserError(f"{path} is damaged: its hash differs from the one in {sums}; download it again.")


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
