"""The files of an export that people and servers read: card.md, example.py and config.pbtxt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from dltoolkit import display, machine
from dltoolkit.export.folder import MODEL_FILES
from dltoolkit.formatting import percent

RUNTIMES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "savedmodel": "TensorFlow", "keras": "Keras"}
PACKAGES = {
    "onnx": "onnxruntime",
    "litert": "ai-edge-litert",
    "savedmodel": "tensorflow",
    "keras": "keras and tensorflow",
}
LABELS = {
    "examples": "Test examples compared",
    "label_agreement": "Equal labels",
    "max_difference": "Largest difference",
    "mean_difference": "Mean difference",
    "accuracy": "Accuracy of the file",
    "accuracy_ci95": "95 % interval of it",
    "accuracy_of_run": "Accuracy of the run",
    "p_value": "p-value of the difference (McNemar)",
    "loss": "Loss of the file, nats per token",
    "loss_of_run": "Loss of the run, nats per token",
    "equal_tokens": "Equal tokens of the greedy continuation",
    "continued_tokens": "of",
    "equal_pixels": "Equal pixels",
    "ms_1_thread": "One input, 1 thread",
    "ms_2_threads": "One input, 2 threads",
    "per_second": "Inputs per second, in batches",
    "peak_memory_mb": "Peak memory of the process",
    "bytes": "Size of the model file",
}
COLUMNS = ("format", "weights", "MB", "score", "equal", "1 | 2 threads", "items/s", "peak MB")  # at most 80 characters
WEIGHTS = {  # in the table, by the quantization in words
    "none": "float32",
    "weights in float16": "float16",
    "weights in int8": "int8",
    "weights and activations in int8": "all int8",
}
PERCENTAGES = ("label_agreement", "accuracy", "accuracy_of_run", "equal_pixels")
OWN_LICENSE = "The weights were trained on the data above; their license is that of whoever trained them."
PRETRAINED_LICENSE = "The weights come from {}: the license of that model holds, together with that of the data."
NEEDS = {"bpe": ", tokenizers", "sentencepiece": ", sentencepiece"}  # of example.py, by the kind of the tokenizer
TENSORS = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "uint8": "TYPE_UINT8"}
LOADS = {
    "keras": (
        "import keras",
        """MODEL = keras.saving.load_model(FOLDER / "model.keras")
predict = lambda inputs: np.asarray(MODEL(inputs if len(inputs) > 1 else inputs[0]))
answer = lambda **inputs: dict.fromkeys(("logits", "image"), predict(list(inputs.values())))
""",
    ),
    "onnx": (
        "import onnxruntime",
        """SESSION = onnxruntime.InferenceSession(FOLDER / "model.onnx")
NAMES = [output.name for output in SESSION.get_outputs()]
answer = lambda **inputs: dict(zip(NAMES, SESSION.run(None, inputs)))
""",
    ),
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter",
        """answer = Interpreter(model_path=str(FOLDER / "model.tflite")).get_signature_runner()
""",
    ),
    "savedmodel": (
        "import tensorflow",
        """MODEL = tensorflow.saved_model.load(FOLDER / "1")
predict = MODEL.signatures["serving_default"]
tensors = lambda inputs: {name: tensorflow.constant(array) for name, array in inputs.items()}
answer = lambda **inputs: {name: tensor.numpy() for name, tensor in predict(**tensors(inputs)).items()}
""",
    ),
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
)


def format_value(name: str, value: Any) -> str:
    """Return a figure as people read it."""
    if name in PERCENTAGES:
        return percent(value)
    if name == "accuracy_ci95":
        return " to ".join(map(percent, value))
    if name == "bytes":
        return f"{value / 1e6:.2f} MB"
    if name.startswith("ms_"):
        return f"{_digits(value)} ms"
    if name == "peak_memory_mb":
        return f"{value:,.0f} MB"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if name == "per_second" else f"{value:.4g}"


def _digits(value: float) -> str:
    """Format 0.01234 as "0.012", 12.34 as "12.3" and 1234 as "1,234"."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def row(info: dict[str, Any]) -> list[str]:
    """Return the cells of an export; the run itself has only some of them."""
    parity, speed = info.get("parity", {}), info.get("speed", {})
    score = parity.get("accuracy", parity.get("loss"))
    equal = parity.get("label_agreement", parity.get("equal_pixels"))
    times = [_digits(speed[name]) if name in speed else "-" for name in ("ms_1_thread", "ms_2_threads")]
    if "equal_tokens" in parity:
        equal = parity["equal_tokens"] / parity["continued_tokens"]
    return [
        info["runtime"],
        WEIGHTS.get(info["quantize"], info["quantize"]),
        f"{info['bytes'] / 1e6:,.1f}" if "bytes" in info else "-",
        "-" if score is None else percent(score) if "accuracy" in parity else f"{score:.4f}",
        "-" if equal is None else percent(equal),
        "-" if times == ["-", "-"] else f"{' | '.join(times)} ms",
        *(f"{speed[name]:,.0f}" if name in speed else "-" for name in ("per_second", "peak_memory_mb")),
    ]


def write_example(folder: Path, info: dict[str, Any], template: str, **values: Any) -> None:
    """Write example.py.

    Args:
        folder: The exported folder.
        info: The contents of export.json.
        template: "image", "text", "language" or "generator".
        values: Further values of the template.
    """
    imports, load = LOADS[info["runtime"]]
    text = _ENVIRONMENT.get_template(f"example_{template}.py.j2").render(
        imports=imports, load=load, package=PACKAGES[info["runtime"]], **values
    )
    (folder / "example.py").write_text(text, encoding="utf-8")


def write_triton(folder: Path, info: dict[str, Any]) -> None:
    """Write config.pbtxt for NVIDIA's Triton server, which takes the file as ``1/model.onnx``."""

    def tensors(kind: str) -> str:
        entries = [
            f'  {{ name: "{tensor["name"]}" data_type: {TENSORS[tensor["dtype"]]} dims: '
            f"{[-1 if size is None else size for size in tensor['shape']]} }}"
            for tensor in info[f"{kind}s"]
        ]
        return f"{kind} [\n" + ",\n".join(entries) + "\n]\n"

    text = 'backend: "onnxruntime"\nmax_batch_size: 0\n' + tensors("input") + tensors("output")
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _plain(text: Any) -> str:
    """Return a text on one line that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", display.visible(str(text)))


def write_card(folder: Path, info: dict[str, Any], run_info: dict[str, Any], example: str, needs: str) -> None:
    """Write card.md.

    Args:
        folder: The exported folder.
        info: The contents of export.json.
        run_info: The contents of run.json.
        example: The command that runs example.py.
        needs: What example.py needs, in words.
    """
    config, data = run_info["config"], run_info["data"]
    backbone = config.get("backbone") or config.get("weights")
    classes = data.get("classes") or []
    facts = [
        ("Data", _plain(data.get("source", ""))),
        *(
            [("Classes", ", ".join(map(_plain, classes[:20])) + (", …" if len(classes) > 20 else ""))]
            if classes
            else []
        ),
        ("Recipe", _plain(run_info["recipe"])),
        ("Quantization", info["quantize"]),
        ("File", f"{MODEL_FILES[info['runtime']]}, {info['bytes'] / 1e6:.2f} MB"),
    ]
    text = _ENVIRONMENT.get_template("card.md.j2").render(
        info=info,
        runtime=info["runtime"],
        runtime_name=RUNTIMES[info["runtime"]],
        what=f"Exported from a run of {_plain(run_info['recipe'])}.",
        facts=facts,
        verdict="Yes." if info["passed"] else f"No: {'; '.join(info['failures'])}.",
        parity=[(LABELS[name], format_value(name, value)) for name, value in info["parity"].items()],
        speed=[(LABELS[name], format_value(name, value)) for name, value in info["speed"].items()],
        machine=machine.description()["processor"],
        example=example,
        needs=needs,
        license=PRETRAINED_LICENSE.format(_plain(backbone)) if backbone else OWN_LICENSE,
    )
    (folder / "card.md").write_text(text, encoding="utf-8")
