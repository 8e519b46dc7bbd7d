"""Names on the Hub of the base model and the training data of a run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.local_paths import HUB_NAME
from whisper_ft.config.training import TrainingConfig

HUB_ADDRESS = re.compile(r"hf://datasets/([\w-][\w.-]*/[\w.-]+?)(?:@.*|/.*)?")


def hub_model(name: str) -> str | None:
    """Return the name of the base model on the Hub; None if the base model may be a local folder.

    A name such as `owner/name` may also be a folder. It is accepted if no such folder exists here, and if it is one of
    OpenAI's models or the model is in the download cache.
    """
    if not HUB_NAME.fullmatch(name) or Path(name).exists():
        return None
    is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    return name if is_cached or name.startswith("openai/whisper-") else None


def hub_datasets(config: TrainingConfig, recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return the training sets that are on the Hub: name of each, and the part that was used. Local data is left out.

    `recorded` is the data fingerprint in a checkpoint, which contains the commit of data read from the Hub.
    """
    parts = {}
    sources: Sequence[SourceConfig] = config.data.sources or [config.data]
    fingerprints = recorded.get("sources") or [recorded]
    for source, fingerprint in zip(sources, [*fingerprints, *[{}] * len(sources)], strict=False):
        if address := HUB_ADDRESS.fullmatch(source.path):
            parts[address[1]] = source.split or ""
        elif commit := fingerprint.get("commit"):
            parts[source.path] = ", ".join(filter(None, (source.config_name, source.split, f"commit {commit[:10]}")))
    return parts
