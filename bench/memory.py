"""What evaluate.py takes from its start to its end: a real process, with scores, predictions and report."""

import subprocess

from bench.ours import ROOT, started
from bench.tasks import TranscriptionTask, answer, from_argument
from bench.watch import Watch


def main() -> None:
    """Evaluate, and report."""
    task = from_argument(TranscriptionTask)
    given = {
        "model": task.model,
        "data.path": task.data,
        "data.language": task.language,
        "decoding.batch_size": task.batch,
        "max_utterances": task.utterances,
        "device": "cpu",
        "out": task.texts,
    }
    with (
        subprocess.Popen(started("evaluate.py", given), cwd=ROOT, stdout=subprocess.DEVNULL) as process,
        Watch(process.pid) as watch,
    ):
        process.wait()
    if process.returncode:
        raise SystemExit(f"evaluate.py ended with {process.returncode}")
    answer(watch.result())


if __name__ == "__main__":
    main()
