"""Nearest name: the setting that a user probably means by an unknown name."""

import difflib
from collections.abc import Sequence

OTHER_NAMES = {
    "learning_rate": "optim.lr",
    "adam_epsilon": "optim.eps",
    "adam_beta1": "optim.betas",
    "adam_beta2": "optim.betas",
    "max_grad_norm": "optim.clip_norm",
    "gradient_clip_val": "optim.clip_norm",
    "optimizer": "optim.name",
    "lr_scheduler_type": "schedule.kind",
    "warmup_steps": "schedule.warmup",
    "warmup_ratio": "schedule.warmup",
    "batch_size": "batch.size",
    "train_batch_size": "batch.size",
    "per_device_train_batch_size": "batch.per_device",
    "gradient_accumulation_steps": "batch.per_device",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "output_dir": "run_dir",
    "resume_from_checkpoint": "resume",
    "overwrite_output_dir": "overwrite",
    "fp16": "precision",
    "bf16": "precision",
    "mixed_precision": "precision",
    "model_name_or_path": "model.name",
    "freeze_encoder": "model.freeze",
    "freeze_feature_encoder": "model.freeze",
    "attn_implementation": "model.attention",
    "torch_compile": "model.compile",
    "label_smoothing_factor": "loss.label_smoothing",
    "dataset_name": "data.path",
    "dataset_config_name": "data.config_name",
    "train_file": "data.path",
    "train_split_name": "data.split",
    "audio_column_name": "data.audio_column",
    "text_column_name": "data.text_column",
    "dataloader_num_workers": "data.workers",
    "num_workers": "data.workers",
    "eval_steps": "eval.every",
    "eval_split_name": "eval.split",
    "metric_for_best_model": "eval.metric",
    "early_stopping_patience": "eval.patience",
    "generation_max_length": "eval.max_new_tokens",
    "generation_num_beams": "eval.num_beams",
    "save_steps": "save.every",
    "save_total_limit": "save.keep",
    "logging_steps": "log.every",
    "report_to": "track.to",
    "run_name": "track.name",
}
"""Names of the same settings in the Trainer of transformers and in its examples."""
CLOSE_ENOUGH = 0.5
"""Least similarity of whole names, from 0 to 1."""
PARTS_CLOSE_ENOUGH = 0.8
"""Least similarity of last parts, from 0 to 1. It is higher, because a short part resembles many others."""

FEWEST_LETTERS = 4
"""Fewest letters that stand for a name that begins with them. With fewer, many names begin alike."""


def nearest(key: str, names: Sequence[str]) -> str | None:
    """Return the name that is nearest to an unknown one: by its last part, by its name elsewhere, or by its letters.

    Letters with which a last part begins stand for it: `lang` for `language`.

    Returns None if no name is close enough.
    """
    last = key.rsplit(".", 1)[-1].replace("-", "_").lower()
    by_part: dict[str, list[str]] = {}
    for name in names:
        by_part.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    by_part |= {other: [name] for other, name in OTHER_NAMES.items() if name in names and other not in by_part}
    begun = [part for part in by_part if len(last) >= FEWEST_LETTERS and part.startswith(last)]
    last = min(begun, key=len, default=last)
    if last not in by_part:
        whole = difflib.get_close_matches(key, names, n=1, cutoff=CLOSE_ENOUGH)
        parts = difflib.get_close_matches(last, by_part, n=1, cutoff=PARTS_CLOSE_ENOUGH)
        if whole and not (parts and "." not in key):
            return whole[0]
        if not parts:
            return None
        last = parts[0]
    return difflib.get_close_matches(key, by_part[last], n=1, cutoff=0.0)[0]
