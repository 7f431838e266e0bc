"""How messages spell options, and the right option for a name that does not exist.

Messages in the code hold options as flags, with a value after an equals sign: ``use --device=cpu``. The command line
prints ``use --device cpu``, and a Python program reads ``use device='cpu'``.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

# Names of Ultralytics, timm, Hugging Face, nanoGPT and scikit-learn, by the option that has the same meaning here
PEER_NAMES = {
    "data": "data_dir data_path dataset dataset_name dataset_dir train_file input folder path",
    "limit": "max_train_samples max_samples num_samples fraction subset",
    "validation_fraction": "val_split validation_split val_fraction val_size validation_size",
    "test_fraction": "test_split test_size",
    "label_column": "label target label_col label_name target_column",
    "text_column": "text_col text_name",
    "image_column": "image_col image_name",
    "split_column": "split_col partition partition_column fold fold_column subset_column",
    "encoding": "charset file_encoding",
    "skip_invalid": "skip_bad ignore_errors ignore_verifications",
    "model": "arch architecture model_name model_type network",
    "backbone": "pretrained init_from initial_checkpoint model_name_or_path base_model",
    "image_size": "imgsz img_size img input_size resolution size crop_size",
    "resize": "resize_mode crop crop_mode crop_to_aspect_ratio pad_to_aspect_ratio letterbox",
    "context_length": "block_size seq_len seq_length sequence_len max_seq_len max_seq_length",
    "max_length": "max_seq_length max_seq_len seq_len seq_length block_size",
    "layers": "n_layer n_layers num_layers depth num_hidden_layers",
    "heads": "n_head n_heads num_heads num_attention_heads",
    "embedding_dim": "n_embd embed_dim hidden_size d_model dim",
    "units": "hidden_dim hidden_units hidden_size filters",
    "widths": "channels filters hidden_units",
    "dropout": "drop drop_rate dropout_rate",
    "vocab_size": "vocab vocabulary max_features num_words",
    "ngrams": "ngram_range word_ngrams",
    "rank": "lora_r lora_rank r",
    "unfreeze": "freeze freeze_layers",
    "steps": "max_steps max_iters num_iterations num_steps iterations iters",
    "epochs": "num_epochs n_epochs num_train_epochs max_epochs max_steps max_iters num_iterations iterations",
    "max_time": "time max_hours time_limit timeout",
    "batch_size": "batch bs mini_batch_size device_batch_size total_batch_size per_device_train_batch_size",
    "optimizer": "opt optim",
    "learning_rate": "lr lr0 base_lr max_lr peak_lr eta0",
    "discriminator_lr": "d_lr lr_d discriminator_learning_rate",
    "weight_decay": "wd",
    "ema_decay": "ema model_ema model_ema_decay ema_momentum",
    "metric": "monitor eval_metric selection_metric best_metric metric_for_best_model checkpoint_metric",
    "patience": "early_stop early_stopping early_stopping_patience",
    "label_smoothing": "smoothing label_smoothing_factor",
    "class_weights": "balanced weighted",
    "gradient_penalty": "gp lambda_gp gp_weight r1 r1_gamma",
    "seed": "random_seed random_state manual_seed",
    "augment": "augmentation aug no_aug aa auto_augment autoaugment randaugment trivial_augment",
    "flip": "hflip fliplr horizontal_flip mirror",
    "tta": "test_time_augmentation",
    "cutout": "reprob random_erasing erasing",
    "color_jitter": "jitter hsv_h hsv_s hsv_v",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "out_dir": "out output output_dir save_dir project outdir",
    "name": "run_name experiment exp_name",
    "device": "gpu gpus cuda accelerator devices",
    "precision": "amp fp16 bf16 half dtype mixed_precision",
    "xla": "compile jit jit_compile torchcompile torch_compile",
}
# Names without an option of the same meaning, and the reason
EXPLAINED_NAMES = {
    "workers": "data is read on all CPU cores, and 'dltoolkit launch --workers N' trains in several processes",
}
EXPLAINED_NAMES |= dict.fromkeys(("num_workers", "dataloader_num_workers"), EXPLAINED_NAMES["workers"])
MAX_SHOWN = 80  # characters of a name that the message shows
PYTHON_NAMES = {"class": "label", "prompt": "prompts"}  # parameters of generate that have another name than the flag
# What stands in quotation marks, such as the user's own words, a command at the end, and a flag with its value
_QUOTED_OR_FLAG = re.compile(
    r": dltoolkit .*|(?<!\w)'[^']*'(?!\w)"
    r"|(?<![\w/-])--(?P<no>no-)?(?P<name>[a-z]+(?:-[a-z]+)*)(?:=(?P<value>[\w./~+,:-]*\w))?(?![\w/-])"
)
CUTOFF = 0.6  # similarity (difflib's ratio) below which a suggestion would rather mislead than help


def no_such_option(written: str, names: Iterable[str]) -> str:
    """Return the message for an option that does not exist, with the option that the user may have meant.

    Args:
        written: The option as the user wrote it, ``--lr`` on the command line or ``lr`` in a file.
        names: Names of the options that exist, in any spelling.
    """
    message = f"There is no option '{written[:MAX_SHOWN]}'"
    explanation = EXPLAINED_NAMES.get(_normalize(written))
    if explanation:
        return f"{message}: {explanation}."
    match = find(written[:MAX_SHOWN], names)
    if match is None:
        return f"{message}."
    flag = f"--{match.replace('_', '-')}"
    return f"{message}; did you mean {flag if written.startswith('-') else repr(match)}?"


def find(written: str, names: Iterable[str]) -> str | None:
    """Return the normalized name, such as ``learning_rate``, that ``written`` most likely means, or None."""
    word, names = _normalize(written), [_normalize(name) for name in names]
    for name, peers in PEER_NAMES.items():
        if name in names and word in peers.split():
            return name
    return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=CUTOFF)), None)


def _normalize(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


_flags = False  # whether messages spell options as flags; see flags()


@contextlib.contextmanager
def flags() -> Iterator[None]:
    """Spell options in messages as the command line does inside the block, in all threads."""
    global _flags
    before, _flags = _flags, True
    try:
        yield
    finally:
        _flags = before


def spell(message: str) -> str:
    """Return a message with its options as the caller writes them: flags, or names in a Python program."""
    return _QUOTED_OR_FLAG.sub(_spell_flag if _flags else _spell_name, message) if "--" in message else message


def _spell_flag(match: re.Match) -> str:
    return match[0] if match["value"] is None else match[0].replace("=", " ", 1)


def _spell_name(match: re.Match) -> str:
    if match["name"] is None:
        return match[0]
    name, value = match["name"].replace("-", "_"), match["value"]
    if match["no"]:
        return f"{name}=False"
    if value is None:
        return PYTHON_NAMES.get(name, name)
    is_number = re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", value)
    return f"{name}={value if is_number else repr(value)}"
