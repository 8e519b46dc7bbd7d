"""Header of a safetensors file: names of the tensors, and whether they fill the file. torch is not imported."""

import math
from pathlib import Path
from typing import Any

from whisper_ft.runtime.regular_file import open_regular, strict_json

HEADER_BYTES = 100_000_000  # largest header that the format allows
LENGTH_BYTES = 8  # the header's length stands before it, little-endian


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors in a file.

    Raises OSError if the file cannot be read, and ValueError if its header does not describe exactly its bytes.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= length <= HEADER_BYTES:
            raise ValueError("it has no header of a safetensors file")
        header = strict_json(file.read(length))
        size = file.seek(0, 2) - LENGTH_BYTES - length
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    spans = sorted(_span(name, entry) for name, entry in tensors.items())
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != size:
        raise ValueError("its tensors do not fill it")
    return list(tensors)


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return the offsets of the first byte of a tensor and of the byte after its last one.

    Raises ValueError if the header's entry does not describe a tensor.
    """
    try:
        begin, end = entry["data_offsets"]
        elements = math.prod(entry["shape"])
        is_sound = 0 <= begin <= end and isinstance(entry["dtype"], str) and (elements > 0) == (end > begin)
    except (KeyError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise ValueError(f"its header does not describe {name[:40]}")
    return begin, end
