"""model.bin of CTranslate2: its variables by name.

All numbers are little-endian; a string is uint16 length, the bytes, and a closing NUL that the length includes. Layout,
as CTranslate2 writes it (`specs/model_spec.py`):

    uint32 version, string name of the specification, uint32 revision, uint32 number of variables; for each variable
    string name, uint8 rank, uint32 sizes, uint8 type, uint32 bytes, the data;
    uint32 number of aliases; for each alias two strings, the alias and the variable
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_ft.models.conversion.byte_reader import LONGEST_NAME, ByteReader, reading

VERSIONS = (5, 6)
"""Versions of the binary format that are known: faster-whisper's models have 5 or 6, since 2022."""
SPECIFICATION = "WhisperSpec"
TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""Types by their number in the file."""
STORED = {"bfloat16": np.dtype("<u2")} | {name: np.dtype(name).newbyteorder("<") for name in TYPES[:5]}
MOST_VARIABLES = 20_000  # limit of a plausible file; large-v3 has about 1,000
MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Variable:
    """A variable of a file: its shape, its type, and the position of its data."""

    shape: tuple[int, ...]
    type: str
    start: int

    def values(self, reader: ByteReader) -> np.ndarray:
        """Read the data in the stored type; bfloat16 becomes float32."""
        array = reader.array(self.start, int(np.prod(self.shape, dtype=np.int64)), STORED[self.type])
        if self.type == "bfloat16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(self.shape)


def read_variables(path: Path) -> dict[str, Variable]:
    """Read names, shapes and places of all variables of a Whisper, those under an alias included.

    Raises UsageError for a file that is damaged or of another kind.
    """
    with reading(path) as reader:
        (version,) = reader.numbers("I", "the header")
        if version not in VERSIONS:
            raise reader.error(f"not a model of CTranslate2 that can be read: version {version}, expected 5 or 6")
        if (specification := _string(reader)) != SPECIFICATION:
            raise reader.error(f"a model of CTranslate2, but not a Whisper: {specification!r}, not {SPECIFICATION!r}")
        _revision, count = reader.numbers("2I", "the header")
        if count > MOST_VARIABLES:
            raise reader.error(f"{count:,} variables; expected at most {MOST_VARIABLES:,}")
        variables: dict[str, Variable] = {}
        for _ in range(count):
            name, variable = _variable(reader)
            if name in variables:
                raise reader.error(f"the variable {name!r} stands in the file twice")
            variables[name] = variable
        variables |= _aliases(reader, variables)
        if not reader.at_end:
            raise reader.error(f"{reader.size - reader.position:,} bytes follow the last alias")
        return variables


def _variable(reader: ByteReader) -> tuple[str, Variable]:
    name = _string(reader)
    (rank,) = reader.numbers("B", "a variable")
    if rank > MOST_DIMENSIONS:
        raise reader.error(f"{name!r} has {rank} dimensions; expected at most {MOST_DIMENSIONS}")
    shape = reader.numbers(f"{rank}I", "a variable")
    type, stored = reader.numbers("BI", "a variable")
    if type >= len(TYPES):
        raise reader.error(f"{name!r} has the type {type}; the types that are known are 0 to {len(TYPES) - 1}")
    expected = STORED[TYPES[type]].itemsize
    for size in shape:
        expected *= size
    if stored != expected:
        raise reader.error(f"{name!r} has {stored:,} bytes; its shape {shape} and type {TYPES[type]} need {expected:,}")
    return name, Variable(shape, TYPES[type], reader.skip(stored, f"the variable {name!r}"))


def _aliases(reader: ByteReader, variables: dict[str, Variable]) -> dict[str, Variable]:
    """Read the aliases, each with the variable that it stands for."""
    (count,) = reader.numbers("I", "the aliases")
    if count > MOST_VARIABLES:
        raise reader.error(f"{count:,} aliases; expected at most {MOST_VARIABLES:,}")
    aliases = {}
    for _ in range(count):
        alias, name = _string(reader), _string(reader)
        if name not in variables or alias in variables or alias in aliases:
            raise reader.error(f"{alias!r} is an alias of {name!r}, which is not a variable, or stands there twice")
        aliases[alias] = variables[name]
    return aliases


def _string(reader: ByteReader) -> str:
    (length,) = reader.numbers("H", "a name")
    if length > LONGEST_NAME:
        raise reader.error(f"a name of {length} bytes; expected at most {LONGEST_NAME}")
    return reader.take(length, "a name").rstrip(b"\0").decode("utf-8", "replace")
