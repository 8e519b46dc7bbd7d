"""Estimate of the memory of a training run, without a GPU: `python -m whisper_ft estimate [--gpu_gb GB]`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted, say
from whisper_ft.training.memory.memory_estimate import estimate
from whisper_ft.training.memory.memory_fit import RESERVE, estimate_of, largest_pass, usable, windows_of
from whisper_ft.training.memory.memory_lines import gigabytes, improvement_lines
from whisper_ft.training.memory.model_dimensions import OPENAI_MODELS, ModelDimensions, dimensions_of
from whisper_ft.training.memory.workload import Workload

PROGRAM = "python -m whisper_ft estimate"
CARDS_GB = (8, 16, 24, 40, 80)  # memories of common cards
SIZES = ("tiny", "base", "small", "medium", "large-v3", "large-v3-turbo")
LORA = {"adapter.kind": "lora"}
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, checkpointing": {"model.gradient_checkpointing": True},
    "the same, 8-bit Adam": {"model.gradient_checkpointing": True, "optim.name": "adamw_8bit"},
    "LoRA": LORA,
    "LoRA on int8": LORA | {"adapter.base": "int8"},
    "LoRA on nf4": LORA | {"adapter.base": "nf4"},
    "nf4, checkpointing": LORA | {"adapter.base": "nf4", "model.gradient_checkpointing": True},
}
"""Ways to train, as changes to the settings, for the table of all sizes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the estimate, and return the exit code: 2 for a wrong argument or an unknown model."""
    return exit_code_of(lambda: report(*parse_arguments(sys.argv[1:] if argv is None else argv)))


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, TrainingConfig, bool]:
    """Parse the command's own arguments and the settings of the run. The last value is True if a model is given.

    Raises UsageError for a value that cannot work.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Estimate the memory of a training step by parts, and the windows of a pass that fit. Without "
        "--model.name, all sizes of Whisper are compared. All other arguments are settings of a run, as for train.py; "
        "docs/memory.md says how far the estimate may be off.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--gpu_gb", type=float, metavar="GB", help="memory of the card, in GB of 10^9 bytes")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of the run (1)")
    try:
        args, settings = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(f"--{(error.argument_name or '').lstrip('-')}: {error.message}") from error
    if args.gpu_gb is not None and not 0 < args.gpu_gb < 1e6:
        raise UsageError(f"--gpu_gb must be above 0, got {args.gpu_gb:g}")
    if args.processes < 1:
        raise UsageError(f"--processes must be at least 1, got {args.processes}")
    config = load_config(TrainingConfig, settings, PROGRAM)
    if config.precision == "auto":
        config = with_values(config, {"precision": "fp32" if config.device == "cpu" else "bf16"})
    return args, config, "model.name" in given_settings(TrainingConfig, settings)


def report(args: argparse.Namespace, config: TrainingConfig, names_model: bool) -> None:
    """Print the estimate for one model, or the table of all sizes. Raises UsageError for an unknown model."""
    if names_model:
        say(*lines_of_model(config, dimensions_of(config.model.name), args.gpu_gb, args.processes))
    else:
        say(*table(config, args.gpu_gb, args.processes))


def lines_of_model(
    config: TrainingConfig, model: ModelDimensions, gpu_gb: float | None, processes: int
) -> Iterator[str]:
    """Yield the parts of a step, the windows of a pass that fit into a card, and the settings that make it fit.

    `batch.per_device: auto` stands for the windows that fit into the card, or without one for the whole share.
    """
    on_gpu, windows = config.device != "cpu", windows_of(config, processes)
    work = Workload.of(config, model, on_gpu=on_gpu, windows=windows, processes=processes)
    if config.batch.per_device == "auto":
        fitting = largest_pass(work, usable(int(gpu_gb * 1e9))) if gpu_gb else windows
        windows = max(min(windows, fitting), 1)
        config = with_values(config, {"batch.per_device": windows})
    step = estimate_of(config, model, on_gpu=on_gpu, processes=processes)
    yield f"{config.model.name}: {counted(model.weights, 'weight')}, {counted(windows, 'window')} in a pass"
    for name, count in step.parts.items():
        if count:
            yield f"  {name:<12} {gigabytes(count):>9}"
    yield f"  {'total':<12} {gigabytes(step.total):>9}"
    for size in (gpu_gb,) if gpu_gb else CARDS_GB:
        most = largest_pass(work, usable(int(size * 1e9)))
        advice = f"--batch.per_device up to {most}" if most else "does not fit with these settings"
        yield f"{size:g} GB, of which {RESERVE:.0%} stay free: {advice}"
    if gpu_gb and on_gpu and step.total > usable(int(gpu_gb * 1e9)):
        yield "change in this order, each on top of the ones before:"
        yield from improvement_lines(config, model, int(gpu_gb * 1e9), processes=processes)


def table(config: TrainingConfig, gpu_gb: float | None, processes: int) -> Iterator[str]:
    """Yield a table in Markdown of all sizes by ways to train.

    A cell has the memory for a pass of one window, and the most windows that fit into the card, if one is given.
    """
    card = f"; in brackets the windows of a pass that fit in {gpu_gb:g} GB" if gpu_gb else ""
    yield f"Memory of a step with one window of 30 s in a pass, in GB{card}."
    yield ""
    yield f"| model | {' | '.join(WAYS)} |"
    yield f"|---{'|---' * len(WAYS)}|"
    for size in SIZES:
        cells = [_cell(config, changes, OPENAI_MODELS[size], gpu_gb, processes) for changes in WAYS.values()]
        yield f"| {size} | {' | '.join(cells)} |"


def _cell(
    config: TrainingConfig, changes: dict[str, Any], model: ModelDimensions, gpu_gb: float | None, processes: int
) -> str:
    changed, on_gpu = with_values(config, changes), config.device != "cpu"
    work = Workload.of(changed, model, on_gpu=on_gpu, windows=1, processes=processes)
    memory = f"{estimate(work).total / 1e9:.1f}"
    if not gpu_gb:
        return memory
    most = largest_pass(work, usable(int(gpu_gb * 1e9)))
    return f"{memory} ({most})" if most else f"{memory} (no)"


if __name__ == "__main__":
    sys.exit(main())
