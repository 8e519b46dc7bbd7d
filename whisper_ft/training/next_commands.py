"""Commands for a finished model, which the end of a run and evaluate.py print."""

import json
import shlex
from pathlib import Path

from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.models.export.openai_layout import VOCABULARIES
from whisper_ft.reports.curves.history import run_of
from whisper_ft.training.run_folder import model_of


def next_commands(model: str) -> list[str]:
    """Return a line for each command that uses a model, given as a run directory, a folder or a name on the Hub."""
    name = shlex.quote(model)
    merge = f"merge the adapter into its base, as a whole model: python -m whisper_ft merge {name} --out DIR"
    export = f"take it to faster-whisper: python -m whisper_ft export {name} --to ct2 --out DIR"
    run = run_of(model)
    reasons = f"ask why a rate is poor: python -m whisper_ft diagnose {shlex.quote(str(run))}"
    return [
        *([reasons] if run else []),
        *([merge] if is_adapter(model_of(model)) else []),
        f"transcribe with it: python -m whisper_ft transcribe {name} FILE",
        f"try it in a browser: python -m whisper_ft serve {name}",
        *([] if _has_own_vocabulary(model_of(model)) else [export]),
    ]


def _has_own_vocabulary(model: str) -> bool:
    """True for a folder of a model with another vocabulary than OpenAI's, which faster-whisper cannot load."""
    try:
        return json.loads(Path(model, "config.json").read_text(encoding="utf-8"))["vocab_size"] not in VOCABULARIES
    except (OSError, ValueError, KeyError):  # an adapter, or a name on the Hub
        return False
