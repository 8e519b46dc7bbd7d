"""Import of the package bitsandbytes, without its advice and without access to the network."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from whisper_ft.runtime.errors import UsageError

KERNELS = "kernels"
"""Package through which bitsandbytes downloads a kernel on some CPUs when it is imported. Nothing here uses the kernel,
so the package is hidden meanwhile."""


@contextmanager
def quiet_bitsandbytes() -> Iterator[None]:
    """Keep bitsandbytes quiet and off the network, if it is imported for the first time in this block.

    Other packages import it, too, such as peft.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels, and reports each cast
    is_hidden = "bitsandbytes" not in sys.modules and KERNELS not in sys.modules
    if is_hidden:
        sys.modules[KERNELS] = None  # type: ignore[assignment]  # an import then fails
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[KERNELS]


def import_bitsandbytes(setting: str, instead: str) -> ModuleType:
    """Import bitsandbytes, which takes seconds. Raises UsageError if it cannot be loaded.

    Parameters
        setting: setting that needs it, and its value, for the message.
        instead: advice for a machine without it.
    """
    try:
        with quiet_bitsandbytes():
            import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:  # OSError: a library that it loads is missing
        raise UsageError(
            f"{setting}: bitsandbytes cannot be loaded ({' '.join(str(error).split())}); install it (pip install "
            f"bitsandbytes), or {instead}"
        ) from error
    module: ModuleType = bitsandbytes
    return module
