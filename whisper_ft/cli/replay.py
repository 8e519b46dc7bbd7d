"""Which utterances a step trains on, without a model: `python -m whisper_ft.replay --run_dir DIR --step N`.

Update N is counted from 0: it is what a run at checkpoint step-N trains on next, and what the row with step N + 1 in
metrics.jsonl reports. One JSON line for each slot of the global batch, in order.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from whisper_ft.checkpoint.format import newest_record
from whisper_ft.config.parse import config_from_plain, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sources import open_mixture, pin_mixture
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_missing_data


def replay(config: TrainingConfig, step: int) -> list[dict[str, object]]:
    """Position, place and id of each utterance in the global batch of update `step`."""
    source = open_mixture(config.data)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
    end = config.end_of(sum(source.rows))
    lines: list[dict[str, object]] = []
    for position in range(step * config.batch.size, (step + 1) * config.batch.size):
        if end is not None and position >= end:
            break
        place = order.locate(position)
        lines.append({"id": source.row_id(place.chunk, place.row), "position": position, "epoch": place.epoch})
    return lines


def configuration(run_dir: Path, data_path: str | None) -> TrainingConfig:
    """What a run trains on; `data_path` in place of the recorded one. UsageError where no run or no data is found."""
    saved, trainer = run_dir / "config.yaml", newest_record(run_dir / "checkpoints")
    if trainer is not None:
        config = config_from_plain(TrainingConfig, trainer["config"])
    elif saved.exists():
        config = load_config(TrainingConfig, ["--config", str(saved)])
    else:
        raise UsageError(f"--run_dir {run_dir}: holds neither a checkpoint nor a config.yaml, so no run started there")
    if data_path is not None:
        config = replace(config, data=replace(config.data, path=data_path))
    try:
        refuse_missing_data(config.data)
    except UsageError as error:
        if data_path is not None or Path(config.data.path).is_absolute():
            raise
        raise UsageError(
            f"{error} from {Path.cwd()}; replay where the run was started, or say where the data is: --data.path PATH"
        ) from error
    if trainer is None:
        return config
    return replace(config, data=pin_mixture(config.data, trainer["config"]["data"], trainer["data"]))


def main() -> int:
    """Print the batch; one line and exit code 2 for a run, its data or a step that is not there."""
    parser = Parser(prog="python -m whisper_ft.replay", description=replay.__doc__, allow_abbrev=False)
    parser.add_argument("--run_dir", type=Path, required=True, help="run that says seed, data and batch")
    parser.add_argument("--step", type=int, required=True, help="update, counted from 0")
    parser.add_argument("--data.path", dest="data_path", metavar="PATH", help="where the data of the run is now")

    def told() -> None:
        arguments = parser.parse_args()
        if arguments.step < 0:
            raise UsageError(f"--step must be 0 or more, got {arguments.step}")
        for line in replay(configuration(arguments.run_dir, arguments.data_path), arguments.step):
            print(json.dumps(line, ensure_ascii=False))

    return exit_code_of(told)


if __name__ == "__main__":
    sys.exit(main())
