"""`python -m whisper_ft.prepare`: any source as parquet shards.

The result is a source like any other: the same rows in the same order. The same command goes on after a stop, and what
it then leaves is, byte for byte, what it would have left without one.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from whisper_ft.commandline import load, refuse_missing
from whisper_ft.failure import PREEMPTED, RunError, UsageError
from whisper_ft.prepare.json_list import open_any
from whisper_ft.prepare.shards import LEFT_OUT, Preparation, PrepareConfig, State


def told(state: State, out: Path) -> str:
    """What was made, for people."""
    said = f"{out}: {state.rows} rows in {state.shards} shards"
    if not state.left_out:
        return said
    lines = (out / LEFT_OUT).read_text(encoding="utf-8").splitlines()
    reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(json.loads(x)["reason"] for x in lines).most_common())
    return f"{said}; {state.left_out} rows left out ({reasons}): {out / LEFT_OUT}"


def prepare(settings: PrepareConfig) -> str:
    """Write the shards, or what is missing of them; what to tell the user. RunError in one line."""
    refuse_missing("data.path", settings.data.path)
    if settings.out is None:
        raise UsageError("--out is missing: the folder for the shards")
    source = open_any(settings.data)
    preparation = Preparation(source, settings, settings.out)
    state, console = preparation.state, Console(stderr=True)
    if state.is_finished:
        return f"nothing to do: {told(state, settings.out)}"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("preparing", total=sum(source.rows), completed=state.rows + state.left_out)
        state = preparation.run(lambda rows: progress.advance(bar, rows))
    return told(state, settings.out)


def main() -> int:
    """Prepare as the command line says; one line and the exit code of failure.py for what cannot be."""
    try:
        # Typed for the settings of the two programs; it reads any dataclass of settings.
        settings: PrepareConfig = load(PrepareConfig, program="python -m whisper_ft.prepare")  # type: ignore[type-var]
        print(prepare(settings))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last whole shard", file=sys.stderr)
        return PREEMPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
