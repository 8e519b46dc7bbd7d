"""Advice for a run that has no memory: the settings that lower its use, in the order in which to try them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import DecodingMemoryError, OutOfMemoryError


def with_advice(error: OutOfMemoryError, config: TrainingConfig | EvaluationConfig) -> OutOfMemoryError:
    """Return a new error of the same type, whose line also names the settings to change, with their present values."""
    if isinstance(config, EvaluationConfig):
        return _with_steps(error, _decoding("decoding.", config.decoding))
    if isinstance(error, DecodingMemoryError):
        return _with_steps(error, _decoding("eval.", config.eval))
    return _with_steps(error, map(str, training_remedies(config)))


def with_decoding_advice(error: OutOfMemoryError, settings: DecodingConfig) -> OutOfMemoryError:
    """Return a new error as `with_advice` does, for a command whose options have the names of the settings."""
    return _with_steps(error, _decoding("", settings))


def _with_steps(error: OutOfMemoryError, steps: Iterable[str]) -> OutOfMemoryError:
    return type(error)(f"{error}. Try in this order: {'; '.join([*steps, 'a smaller model'])}")


class Remedy(NamedTuple):
    """A setting that lowers the memory of a training step, with its present and its new value."""

    name: str
    value: Any
    present: Any
    note: str = ""

    def __str__(self) -> str:
        value = json.dumps(self.value) if isinstance(self.value, bool) else self.value
        value = f"'[{', '.join(value)}]'" if isinstance(value, list) else value
        present = json.dumps(self.present) if isinstance(self.present, bool) else self.present
        return f"--{self.name} {value} (is {present}{self.note and '; ' + self.note})"


def training_remedies(config: TrainingConfig) -> Iterator[Remedy]:
    """Yield the settings that can still be changed to lower the memory of a step, in the order in which to try them."""
    now, optimizer, adapter = config.batch.per_device, config.optim.name, config.adapter
    if now != "auto" and now > 1:
        yield Remedy("batch.per_device", now // 2, now, f"the batch of a step stays {config.batch.size}")
    if not config.model.gradient_checkpointing:
        yield Remedy("model.gradient_checkpointing", True, False, "slower, the same gradient")
    if config.precision in ("auto", "fp32"):  # auto: the error came before the choice
        yield Remedy("precision", "bf16", config.precision)
    if optimizer == "adamw":
        yield Remedy("optim.name", "adamw_8bit", optimizer)
    frozen = config.model.freeze
    if not adapter.enabled and "embeddings" not in frozen and len(frozen) < 2:
        yield Remedy("adapter.kind", "lora", adapter.kind, "only adapters are trained, in a new run")
    elif adapter.enabled and adapter.base != "nf4":
        yield Remedy("adapter.base", "nf4", adapter.base, "the frozen base in 4 bits, in a new run")
    if "encoder" not in frozen and "decoder" not in frozen:
        yield Remedy("model.freeze", [*frozen, "encoder"], frozen)


def _decoding(section: str, config: DecodingConfig) -> Iterator[str]:
    if config.batch_size > 1:
        yield f"--{section}batch_size {config.batch_size // 2} (is {config.batch_size})"
    if config.num_beams > 1:
        yield f"--{section}num_beams 1 (is {config.num_beams})"
