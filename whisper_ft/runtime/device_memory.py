"""Errors of torch's allocators: memory that a GPU or a machine does not have."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from whisper_ft.runtime.errors import OutOfMemoryError, RunError, one_line

SENTENCES = 3  # sentences of torch's message that are shown: the size of the tensor, and the memory of the GPU
NO_MEMORY = "out of memory|can.t allocate memory|not enough memory|STATUS_ALLOC_FAILED"
"""Parts of messages by which torch says that memory is missing without raising torch.OutOfMemoryError."""


@contextmanager
def memory_errors(doing: str, kind: type[OutOfMemoryError] = OutOfMemoryError) -> Iterator[None]:
    """Turn torch's error about missing memory, raised in the block, into an error of `kind` that says where it came.

    `doing` is a phrase such as `in training`. Any other error passes through, Python's MemoryError included.
    """
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:  # torch.OutOfMemoryError is one, too
        if not is_out_of_memory(error):
            raise
        reason = ". ".join(one_line(error).split(". ")[:SENTENCES])
        raise kind(f"out of memory {doing}: {reason}") from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return True if an error of torch is about missing memory; the text decides for errors other than CUDA's own."""
    return isinstance(error, torch.OutOfMemoryError) or re.search(NO_MEMORY, str(error), re.IGNORECASE) is not None
