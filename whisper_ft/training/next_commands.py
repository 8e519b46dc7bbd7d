"""Commands for a finished model, which the end of a run and evaluate.py print."""

import shlex


def next_commands(model: str) -> list[str]:
    """Return a line for each command that uses a model, given as a run directory, a folder or a name on the Hub."""
    name = shlex.quote(model)
    return [
        f"transcribe with it: python -m whisper_ft transcribe {name} FILE",
        f"take it to faster-whisper: python -m whisper_ft export {name} --to ct2 --out DIR",
    ]
