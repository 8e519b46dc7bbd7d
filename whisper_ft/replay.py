"""Which utterances a step trains on, without a model: `python -m whisper_ft.replay --run_dir DIR --step N`.

Update N is counted from 0: it is what a run at checkpoint step-N trains on next, and what the row with step N + 1 in
metrics.jsonl reports. One JSON line for each slot of the global batch, in order.
"""

import argparse
import json
import sys
from pathlib import Path

from whisper_ft.commandline import load
from whisper_ft.config import Config
from whisper_ft.failure import RunError, UsageError
from whisper_ft.order import Order, default_lanes
from whisper_ft.sources import open_source


def replay(config: Config, step: int) -> list[dict[str, object]]:
    """Position, place and id of each utterance in the global batch of update `step`."""
    source = open_source(config.data)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    order = Order(source.rows, seed=config.seed, lanes=lanes, window=config.data.window_chunks)
    lines: list[dict[str, object]] = []
    for position in range(step * config.batch.size, (step + 1) * config.batch.size):
        place = order.locate(position)
        lines.append({"id": source.row_id(place.chunk, place.row), "position": position, "epoch": place.epoch})
    return lines


def main() -> int:
    """Print the batch; one line and exit code 2 for a run or a step that is not there."""
    parser = argparse.ArgumentParser(prog="python -m whisper_ft.replay", description=replay.__doc__, allow_abbrev=False)
    parser.add_argument("--run_dir", type=Path, required=True, help="run whose config.yaml says seed, data and batch")
    parser.add_argument("--step", type=int, required=True, help="update, counted from 0")
    arguments = parser.parse_args()
    try:
        saved = arguments.run_dir / "config.yaml"
        if not saved.exists():
            raise UsageError(f"--run_dir {arguments.run_dir}: holds no config.yaml, so no run was started there")
        if arguments.step < 0:
            raise UsageError(f"--step must be 0 or more, got {arguments.step}")
        for line in replay(load(Config, ["--config", str(saved)]), arguments.step):
            print(json.dumps(line, ensure_ascii=False))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
