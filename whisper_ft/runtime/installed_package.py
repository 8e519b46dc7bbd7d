"""Import of the PyPI package `evaluate`, which our script evaluate.py hides because it has the same name.

Python puts the folder of the running script first on sys.path. So beside our evaluate.py a plain `import evaluate`
finds that script and runs it a second time. Import the package from here instead:

    from whisper_ft.runtime.installed_package import evaluate
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import Any


def import_package(name: str) -> Any:
    """Import the package `name`, skipping each folder of sys.path in which that name is a script or a bare folder.

    sys.path is not changed. The package replaces a script of that name in sys.modules, so a later plain `import` gets
    the package, too. Raises ModuleNotFoundError if the package is not installed.
    """
    present = sys.modules.get(name)
    if _is_package(getattr(present, "__spec__", None)):
        return present
    spec = _find_package(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"the package {name} is not installed: pip install {name}", name=name)
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs: the package imports its own submodules by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # As after a failed import statement: no half-loaded package is left, and the earlier module is restored.
        del sys.modules[name]
        if present is not None:
            sys.modules[name] = present
        raise
    return sys.modules[name]


def _find_package(name: str) -> ModuleSpec | None:
    # One folder at a time, because PathFinder would stop at the script in all of sys.path. It reads "" as the cwd.
    specs = (PathFinder.find_spec(name, [folder]) for folder in sys.path)
    return next((spec for spec in specs if _is_package(spec)), None)


def _is_package(spec: ModuleSpec | None) -> bool:
    # A script has no search locations; a folder without __init__.py (a namespace) has no file.
    return spec is not None and spec.submodule_search_locations is not None and spec.has_location


evaluate = import_package("evaluate")
