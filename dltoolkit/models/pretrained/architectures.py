"""The networks of ``keras.applications``: what they are called there, what they read and how large they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """One architecture.

    Attributes:
        function: its name in ``keras.applications``.
        side: of the pictures that its ImageNet weights were trained on, in pixels.
        smallest: side that it takes.
        millions: of parameters, without the top.
        scaling: of pixels, as ``keras.applications.imagenet_utils`` calls it; "" where the network does it itself.
        options: what else the function is called with.
    """

    function: str
    side: int
    smallest: int
    millions: float
    scaling: str = ""
    options: dict[str, Any] = field(default_factory=dict)


KNOWN = {
    "MobileNet": Known("MobileNet", 224, 32, 3.23, "tf"),
    "MobileNet-0.25": Known("MobileNet", 224, 32, 0.22, "tf", {"alpha": 0.25}),
    "MobileNet-0.5": Known("MobileNet", 224, 32, 0.83, "tf", {"alpha": 0.5}),
    "MobileNetV2": Known("MobileNetV2", 224, 32, 2.26, "tf"),
    "MobileNetV2-0.35": Known("MobileNetV2", 224, 32, 0.41, "tf", {"alpha": 0.35}),
    "MobileNetV2-0.5": Known("MobileNetV2", 224, 32, 0.71, "tf", {"alpha": 0.5}),
    "MobileNetV3Small": Known("MobileNetV3Small", 224, 32, 0.94),
    "MobileNetV3Large": Known("MobileNetV3Large", 224, 32, 3),
    "NASNetMobile": Known("NASNetMobile", 224, 32, 4.27, "tf"),
    "NASNetLarge": Known("NASNetLarge", 331, 32, 84.92, "tf"),
    "EfficientNetB0": Known("EfficientNetB0", 224, 32, 4.05),
    "EfficientNetB1": Known("EfficientNetB1", 240, 32, 6.58),
    "EfficientNetB2": Known("EfficientNetB2", 260, 32, 7.77),
    "EfficientNetB3": Known("EfficientNetB3", 300, 32, 10.78),
    "EfficientNetB4": Known("EfficientNetB4", 380, 32, 17.67),
    "EfficientNetB5": Known("EfficientNetB5", 456, 32, 28.51),
    "EfficientNetB6": Known("EfficientNetB6", 528, 32, 40.96),
    "EfficientNetB7": Known("EfficientNetB7", 600, 32, 64.1),
    "EfficientNetV2B0": Known("EfficientNetV2B0", 224, 32, 5.92),
    "EfficientNetV2B1": Known("EfficientNetV2B1", 240, 32, 6.93),
    "EfficientNetV2B2": Known("EfficientNetV2B2", 260, 32, 8.77),
    "EfficientNetV2B3": Known("EfficientNetV2B3", 300, 32, 12.93),
    "EfficientNetV2S": Known("EfficientNetV2S", 384, 32, 20.33),
    "EfficientNetV2M": Known("EfficientNetV2M", 480, 32, 53.15),
    "EfficientNetV2L": Known("EfficientNetV2L", 480, 32, 117.75),
    "DenseNet121": Known("DenseNet121", 224, 32, 7.04, "torch"),
    "DenseNet169": Known("DenseNet169", 224, 32, 12.64, "torch"),
    "DenseNet201": Known("DenseNet201", 224, 32, 18.32, "torch"),
    "ResNet50": Known("ResNet50", 224, 32, 23.59, "caffe"),
    "ResNet101": Known("ResNet101", 224, 32, 42.66, "caffe"),
    "ResNet152": Known("ResNet152", 224, 32, 58.37, "caffe"),
    "ResNet50V2": Known("ResNet50V2", 224, 32, 23.56, "tf"),
    "ResNet101V2": Known("ResNet101V2", 224, 32, 42.63, "tf"),
    "ResNet152V2": Known("ResNet152V2", 224, 32, 58.33, "tf"),
    "Xception": Known("Xception", 299, 71, 20.86, "tf"),
    "InceptionV3": Known("InceptionV3", 299, 75, 21.8, "tf"),
    "InceptionResNetV2": Known("InceptionResNetV2", 299, 75, 54.34, "tf"),
    "VGG16": Known("VGG16", 224, 32, 14.71, "caffe"),
    "VGG19": Known("VGG19", 224, 32, 20.02, "caffe"),
    "ConvNeXtTiny": Known("ConvNeXtTiny", 224, 32, 27.82),
    "ConvNeXtSmall": Known("ConvNeXtSmall", 224, 32, 49.45),
    "ConvNeXtBase": Known("ConvNeXtBase", 224, 32, 87.57),
    "ConvNeXtLarge": Known("ConvNeXtLarge", 224, 32, 196.23),
    "ConvNeXtXLarge": Known("ConvNeXtXLarge", 224, 32, 348.15),
}
