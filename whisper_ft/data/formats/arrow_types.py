"""Arrow types by what columns of them hold: texts, bytes or lists."""

import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """True for text, also as categories."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """True for bytes."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def is_list(kind: pa.DataType) -> bool:
    """True for lists of any length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
