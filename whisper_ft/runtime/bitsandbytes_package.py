"""Import of the package bitsandbytes, without its advice and without access to the network."""

import logging
import sys
from types import ModuleType

from whisper_ft.runtime.errors import UsageError

KERNELS = "kernels"
"""Package through which bitsandbytes downloads a kernel on some CPUs when it is imported. Nothing here uses the kernel,
so the package is hidden meanwhile."""


def import_bitsandbytes(setting: str, instead: str) -> ModuleType:
    """Import bitsandbytes, which takes seconds. Raises UsageError if it cannot be loaded.

    Parameters
        setting: setting that needs it, and its value, for the message.
        instead: advice for a machine without it.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels, and reports each cast
    is_hidden = "bitsandbytes" not in sys.modules and KERNELS not in sys.modules
    if is_hidden:
        sys.modules[KERNELS] = None  # type: ignore[assignment]  # an import then fails
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:  # OSError: a library that it loads is missing
        raise UsageError(
            f"{setting}: bitsandbytes cannot be loaded ({' '.join(str(error).split())}); install it (pip install "
            f"bitsandbytes), or {instead}"
        ) from error
    finally:
        if is_hidden:
            del sys.modules[KERNELS]
    module: ModuleType = bitsandbytes
    return module
