"""Base of a published adapter: its files name the base on the Hub in place of a folder of this machine."""

import json

from whisper_ft.cli.publish.model_to_publish import ModelToPublish
from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG, BASE_RECORD
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import json_text


def files_naming_base(model: ModelToPublish, base_model: str | None) -> dict[str, bytes]:
    """Return the files of an adapter that name its base, with the base's name on the Hub; none for a whole model.

    Raises UsageError if the base is not on the Hub, because nobody could use the adapter.
    """
    if not model.is_adapter:
        return {}
    if base_model is None:
        raise UsageError(
            f"{model.folder}: an adapter is of no use without its base, which is a local model; name it on the Hub "
            "(--base_model owner/name), or publish the merged model: --what best"
        )
    keys = {ADAPTER_CONFIG: "base_model_name_or_path", BASE_RECORD: "name"}
    contents = {name: json.loads((model.folder / name).read_bytes()) | {key: base_model} for name, key in keys.items()}
    return {name: (json_text(content, indent=2) + "\n").encode() for name, content in contents.items()}
