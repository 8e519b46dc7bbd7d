"""Print the utterances of a training step, without a model: `python -m whisper_ft replay --run_dir DIR --step N`.

Steps are counted from 0. A run that continues from checkpoint step-N does step N next, and reports it in metrics.jsonl
as step N + 1. One JSON line is printed for each position of the global batch, in order.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from whisper_ft.config import yaml12
from whisper_ft.config.parse import config_from_plain, load_config
from whisper_ft.config.resume_policy import as_resumed
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted, json_text, say


def replay(config: TrainingConfig, step: int) -> list[dict[str, object]]:
    """Return id, position and epoch of each utterance in the global batch of a training step.

    A step after the end of a run with `epochs` has none.
    """
    from whisper_ft.data.sampling.order import default_lanes
    from whisper_ft.data.sources import open_mixture

    source = open_mixture(config.data)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
    end = config.end_of(sum(source.rows))
    rows: list[dict[str, object]] = []
    for position in range(step * config.batch.size, (step + 1) * config.batch.size):
        if end is not None and position >= end:
            break
        place = order.locate(position)
        rows.append({"id": source.row_id(place.chunk, place.row), "position": position, "epoch": place.epoch})
    return rows


def configuration(run_dir: Path, data_path: str | None) -> TrainingConfig:
    """Return the configuration of a run, in which each data set has the version that the newest checkpoint records.

    Without a readable checkpoint, it is that of config.yaml, and no versions are added. `data_path` replaces the
    recorded path of the data; None keeps it. Raises UsageError if the folder holds no run, or if the data is not found.
    """
    from whisper_ft.checkpoint.format import newest_record
    from whisper_ft.data.sources import pin_mixture
    from whisper_ft.training.preflight import refuse_missing_data

    saved, record = run_dir / "config.yaml", newest_record(run_dir / "checkpoints")
    if record is not None:
        config = as_resumed(config_from_plain(TrainingConfig, record.config), (), record.config)
    elif saved.exists():
        config = load_config(TrainingConfig, ["--config", str(saved)])
        config = as_resumed(config, (), yaml12.load(saved.read_text(encoding="utf-8")))
    else:
        raise UsageError(f"--run_dir {run_dir}: no checkpoint and no config.yaml in it; name the directory of a run")
    if data_path is not None:
        config = replace(config, data=replace(config.data, path=data_path))
    try:
        refuse_missing_data(config.data)
    except UsageError as error:
        if data_path is not None or Path(config.data.path).is_absolute():
            raise
        raise UsageError(
            f"{error} from {Path.cwd()}; replay from the folder where the run was started, or give --data.path PATH"
        ) from error
    if record is None:
        return config
    return replace(config, data=pin_mixture(config.data, record.config["data"], record.data))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the batch, and return the exit code. A missing run, step or data set is an error of one line and code 2."""
    parser = Parser(prog="python -m whisper_ft replay", description=replay.__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, help="run directory")
    parser.add_argument("--step", type=int, required=True, help="step, counted from 0")
    parser.add_argument("--data.path", dest="data_path", metavar="PATH", help="present path of the run's data")

    def program() -> None:
        args = parser.parse_args(argv)
        if args.step < 0:
            raise UsageError(f"--step must be 0 or more, got {args.step}")
        config = configuration(args.run_dir, args.data_path)
        rows = replay(config, args.step)
        if config.epochs is None and args.step >= (steps := config.steps_over(0)):
            raise UsageError(f"--step {args.step}: the run has {counted(steps, 'step')}, so give 0 to {steps - 1}")
        if not rows:
            raise UsageError(f"--step {args.step}: the run ends before it, after epochs: {config.epochs:g}")
        for row in rows:
            say(json_text(row))

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())
