"""Commands for a finished model, which the end of a run and evaluate.py print."""

import shlex

from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.training.preflight import model_of


def next_commands(model: str) -> list[str]:
    """Return a line for each command that uses a model, given as a run directory, a folder or a name on the Hub."""
    name = shlex.quote(model)
    merge = f"merge the adapter into its base, as a whole model: python -m whisper_ft merge {name} --out DIR"
    return [
        *([merge] if is_adapter(model_of(model)) else []),
        f"transcribe with it: python -m whisper_ft transcribe {name} FILE",
        f"try it in a browser: python -m whisper_ft serve {name}",
        f"take it to faster-whisper: python -m whisper_ft export {name} --to ct2 --out DIR",
    ]
