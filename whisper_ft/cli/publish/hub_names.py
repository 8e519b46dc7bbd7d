"""Names on the Hub of the base model and the training data of a run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from whisper_ft.cli.publish.publish_arguments import HUB_NAME
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.training import TrainingConfig

HUB_ADDRESS = re.compile(r"hf://datasets/([\w-][\w.-]*/[\w.-]+?)(?:@.*|/.*)?")


def hub_model(name: str) -> str | None:
    """The base model's name on the Hub; None for a folder, whose name may look the same: `owner/name`.

    The name is taken as one of the Hub if it is OpenAI's, or if the run left the model in the download cache.
    """
    if not HUB_NAME.fullmatch(name) or Path(name).exists():
        return None
    is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    return name if is_cached or name.startswith("openai/whisper-") else None


def hub_datasets(config: TrainingConfig, recorded: Mapping[str, Any]) -> dict[str, str]:
    """The part that was used of each training set on the Hub, by the set's name. Local data is left out.

    `recorded` is the data fingerprint of a checkpoint, which has the commit of data read from the Hub.
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
