"""Rounds of a measurement: each contender runs in turn, in an equal environment, on a quiet machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import QUIET_SHARE, OtherLoad, wait_for_quiet
from bench.results import RATE
from bench.sizes import Effort
from bench.tasks import Result

ROOT = Path(__file__).parents[1]

console = Console(highlight=False, soft_wrap=True)


def environment(threads: int, on_cpu: bool = True) -> Mapping[str, str]:
    """Return the environment of a contender: threads as in launch.sh, no network, no progress bars, usually no GPU."""
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
    """Run a module in a process. Returns the figures that it prints as its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads, on_cpu), capture_output=True, text=True)
    if done.returncode not in codes:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rounds(effort: Effort, contenders: Iterable[str], once: Callable[[str, int], Result]) -> dict[str, list[Result]]:
    """Run `once(name, number)` for all contenders in turn, in several rounds. Each round begins with another contender.

    A run is repeated if other processes were busy during it. The repetition with the least load from other processes
    counts, whatever its figures are.
    """
    numbers = count()

    def quiet_run(name: str) -> Result:
        attempts: list[Result] = []
        while not attempts or (attempts[-1]["others_share"] > QUIET_SHARE and len(attempts) < effort.attempts):
            wait_for_quiet(effort.patience_seconds)
            others = OtherLoad()
            result = once(name, next(numbers))
            load = {"others_share": others.share(result["cpu_seconds"]), "attempt": len(attempts) + 1}
            attempts.append(result | load)
        return min(attempts, key=lambda result: float(result["others_share"]))

    names = list(contenders)
    runs: dict[str, list[Result]] = {name: [] for name in names}
    for repeat in range(effort.repeats):
        first = repeat % len(names)
        order = names[first:] + names[:first]
        with ThreadPoolExecutor(effort.at_once) as pool:
            for name, result in zip(order, pool.map(quiet_run, order), strict=True):
                runs[name].append(result)
                message = f"{result[RATE]:.1f} utterances/s, others took {result['others_share']:.0%}"
                console.print(f"  {repeat + 1}/{effort.repeats} {name}: {message}")
    return runs


def save(results: dict[str, Any], out: Path) -> None:
    """Write the figures so far to a file, which is replaced in one rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".partial")
    aside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(out)
