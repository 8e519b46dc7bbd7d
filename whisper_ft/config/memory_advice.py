"""Advice for a run that has no memory: the settings that lower its use, in the order in which to try them."""

from collections.abc import Iterable, Iterator

from whisper_ft.config.evaluation import DecodingConfig, EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import DecodingMemoryError, OutOfMemoryError


def with_advice(error: OutOfMemoryError, config: TrainingConfig | EvaluationConfig) -> OutOfMemoryError:
    """Return a new error of the same type, whose line also names the settings to change, with their present values."""
    if isinstance(config, EvaluationConfig):
        return _with_steps(error, _decoding("decoding.", config.decoding))
    if isinstance(error, DecodingMemoryError):
        return _with_steps(error, _decoding("eval.", config.eval))
    return _with_steps(error, _training(config))


def with_decoding_advice(error: OutOfMemoryError, settings: DecodingConfig) -> OutOfMemoryError:
    """Return a new error as `with_advice` does, for a command whose options have the names of the settings."""
    return _with_steps(error, _decoding("", settings))


def _with_steps(error: OutOfMemoryError, steps: Iterable[str]) -> OutOfMemoryError:
    return type(error)(f"{error}. Try in this order: {'; '.join([*steps, 'a smaller model'])}")


def _training(config: TrainingConfig) -> Iterator[str]:
    now, optimizer = config.batch.per_device, config.optim.name
    if now != "auto" and now > 1:
        yield f"--batch.per_device {now // 2} (is {now}; the batch of a step stays {config.batch.size})"
    if not config.model.gradient_checkpointing:
        yield "--model.gradient_checkpointing true (is false; slower, the same gradient)"
    if config.precision in ("auto", "fp32"):  # auto: the error came before the choice
        yield f"--precision bf16 (is {config.precision})"
    if optimizer == "adamw":
        yield f"--optim.name adamw_8bit (is {optimizer})"
    if "encoder" not in config.model.freeze:
        yield f"--model.freeze '[encoder]' (is {config.model.freeze})"


def _decoding(section: str, config: DecodingConfig) -> Iterator[str]:
    if config.batch_size > 1:
        yield f"--{section}batch_size {config.batch_size // 2} (is {config.batch_size})"
    if config.num_beams > 1:
        yield f"--{section}num_beams 1 (is {config.num_beams})"
