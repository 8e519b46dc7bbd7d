"""Record of a comparison on real weights: results in a file, so that an interrupted run continues."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from bench.machine import describe
from bench.real.arms import Extent
from bench.real.inputs import InputError, Inputs
from bench.rounds import save


class Record:
    """Results so far, in a file that is replaced after each step."""

    def __init__(self, path: Path, fixed: dict[str, Any]) -> None:
        """Read the file. Raises InputError if its results are of other inputs or another extent."""
        self._path = path
        self.results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else fixed
        for name, value in fixed.items():
            if name not in ("date", "machine") and self.results.get(name) != value:
                raise InputError(f"{path}: has {name} {self.results.get(name)!r}, not {value!r}; take another --out")

    @classmethod
    def of_inputs(cls, inputs: Inputs, extent: Extent, path: Path, **more: Any) -> Self:
        """Open the record of a comparison. Raises InputError if the file has results of other inputs.

        Parameters
            more: further facts that all results depend on, by name.
        """
        return cls(
            path,
            {
                "date": time.strftime("%Y-%m-%d"),
                "machine": describe(extent.threads),
                "corpus": inputs.name,
                "language": inputs.language,
                "extent": asdict(extent),
                **more,
            },
        )

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a result, which is made only if it is not in the file."""
        if name not in self.results:
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            self.results[name] = make()
            save(self.results, self._path)
        return self.results[name]
