"""Processes that are measured: each in the same environment, in turn, when the machine is quiet."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import QUIET_SHARE, Others, wait_for_quiet
from bench.results import RATE, medians
from bench.sizes import Effort
from bench.tasks import Result

ROOT = Path(__file__).parents[1]

console = Console(highlight=False, soft_wrap=True)


def environment(threads: int, on_cpu: bool = True) -> Mapping[str, str]:
    """The same for every contender: threads as launch.sh sets them, no GPU, no network, no progress bars."""
    no_gpu = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    return {
        **os.environ,
        **no_gpu,
        "GOMP_SPINCOUNT": "1000",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(module: str, threads: int, *arguments: str, codes: tuple[int, ...] = (0,), on_cpu: bool = True) -> Result:
    """The figures that a module prints as the last line of its process."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads, on_cpu), capture_output=True, text=True)
    if done.returncode not in codes:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rounds(
    effort: Effort, contenders: Mapping[str, Any], once: Callable[[str, int], Result]
) -> dict[str, list[Result]]:
    """`once(name, number)` for all contenders in turn, each round beginning with another one.

    A run beside which others were busy is done again, a few times: chosen by their share, never by its own figures.
    """
    numbers = count()

    def observed(name: str) -> Result:
        tried: list[Result] = []
        while not tried or (tried[-1]["others_share"] > QUIET_SHARE and len(tried) < effort.attempts):
            wait_for_quiet(effort.patience_seconds)
            others = Others()
            result = once(name, next(numbers))
            tried.append(result | {"others_share": others.share(result["cpu_seconds"]), "attempt": len(tried) + 1})
        return min(tried, key=lambda result: float(result["others_share"]))

    runs: dict[str, list[Result]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(effort.repeats):
        first = repeat % len(names)
        order = names[first:] + names[:first]
        with ThreadPoolExecutor(effort.at_once) as pool:
            for name, result in zip(order, pool.map(observed, order), strict=True):
                runs[name].append(result)
                told = f"{result[RATE]:.1f} utterances/s, others took {result['others_share']:.0%}"
                console.print(f"  {repeat + 1}/{effort.repeats} {name}: {told}")
    return runs


def repeated(effort: Effort, once: Callable[[int], Result]) -> Result:
    """Medians of `once(number)`, for what makes all its comparisons itself."""
    found = []
    for number in range(effort.repeats):
        wait_for_quiet(effort.patience_seconds)
        found.append(once(number))
        console.print(f"  {number + 1}/{effort.repeats} {found[-1]}")
    return medians(found)


def save(results: dict[str, Any], out: Path) -> None:
    """Put the figures so far into the file, whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".partial")
    aside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(out)
