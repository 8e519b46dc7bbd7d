"""Rows of a training step, and the configuration of a run as its newest checkpoint records it."""

from dataclasses import replace
from pathlib import Path

from whisper_ft.config.data import DataConfig
from whisper_ft.config.run_configuration import recorded_configuration, saved_configuration
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError


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
    recorded path of the data, as the option --data.path of a command does; None keeps it. Raises UsageError if the
    folder holds no run, or if the data is not found.
    """
    from whisper_ft.checkpoint.format import newest_record
    from whisper_ft.data.sources import pin_mixture

    record = newest_record(run_dir / "checkpoints")
    if record is not None:
        config = recorded_configuration(record.config)
    elif (run_dir / "config.yaml").exists():
        config = saved_configuration(run_dir)
    else:
        raise UsageError(f"{run_dir}: no checkpoint and no config.yaml in it; name the directory of a run")
    if data_path is not None:
        if config.data.sources:
            raise UsageError(
                f"--data.path {data_path}: the run has several sources, data.sources; leave --data.path out"
            )
        config = replace(config, data=replace(config.data, path=data_path))
    _refuse_moved_data(config.data, is_named=data_path is not None)
    if record is None:
        return config
    return replace(config, data=pin_mixture(config.data, record.config["data"], record.data))


def _refuse_moved_data(data: DataConfig, *, is_named: bool) -> None:
    """Raise UsageError if the data is not found. `is_named`: the user has just given its path."""
    from whisper_ft.training.preflight import refuse_missing_data

    try:
        refuse_missing_data(data)
    except UsageError as error:
        if is_named:
            raise
        paths = [source.path for source in data.sources] or [data.path]
        is_relative = any("://" not in path and not Path(path).expanduser().is_absolute() for path in paths)
        ways = ["repeat the command in the folder where the run was started"] if is_relative else []
        ways.append("put the data back there" if data.sources else "name their present path: --data.path PATH")
        raise UsageError(f"{error}; {', or '.join(ways)}") from error
