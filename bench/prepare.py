"""What the contenders share: corpus, untrained model, train.py's batches in one file, and a model that has learnt."""

import json
import subprocess
from pathlib import Path

from bench.sizes import Effort, Size
from bench.tasks import TrainingTask

ROOT = Path(__file__).parents[1]
LANGUAGE = "be"


def corpus(scratch: Path, effort: Effort) -> Path:
    """The demo's corpus where `make demo` has left it, else the same sentences written anew."""
    from whisper_ft.demo.corpus import DESCRIPTION, write_corpus

    made = ROOT / "demo-data" / LANGUAGE
    wanted = {"train": effort.train_utterances, "test": effort.test_utterances}
    if (made / DESCRIPTION).exists():
        described = json.loads((made / DESCRIPTION).read_text(encoding="utf-8"))
        if wanted.items() <= described.items():
            return made
    write_corpus(scratch / "corpus", LANGUAGE, validation=2, **wanted)
    return scratch / "corpus"


def write_batches(task: TrainingTask) -> None:
    """Save the batches that train.py trains on in the task's steps, drawn from its own stream."""
    import accelerate
    from safetensors.torch import save_file

    from collator import SpeechCollator
    from normalizers import get_normalizer
    from whisper_ft.agreement import Agreement, StopRequest
    from whisper_ft.config import Batch, Config, Data, Eval, Model
    from whisper_ft.model import quiet_libraries
    from whisper_ft.run import Run
    from whisper_ft.rundir import RunDir

    quiet_libraries()
    config = Config(
        run_dir=Path(task.scratch),
        steps=task.steps,
        device="cpu",
        model=Model(task.model),
        data=Data(path=task.data, language=task.language),
        batch=Batch(task.batch, task.batch),
        eval=Eval(every=0),
    )
    accelerator, folder = accelerate.Accelerator(cpu=True), RunDir(config.run_dir)
    run = Run(config, accelerator, Agreement(), folder, StopRequest(), SpeechCollator, get_normalizer)
    stream = run.stream(0)
    tensors = {}
    for step in range(task.steps):
        (batch,) = stream.draw().micro_batches
        for name in ("input_features", "decoder_input_ids", "labels"):
            tensors[f"{step}.{name}"] = getattr(batch, name)
    save_file(tensors, task.batches)


def teach(size: Size, model: Path, data: Path, scratch: Path, steps: int) -> Path:
    """Train the model that is evaluated, and give its folder."""
    from bench.ours import command

    run_dir = scratch / "taught"
    task = TrainingTask(str(model), str(data), "", str(scratch), LANGUAGE, size.batch, steps, 0, 0, size.learning_rate)
    settings = {"schedule__kind": "linear", "schedule__warmup": 0.1, "log__every": 0}
    done = subprocess.run(command(task, run_dir, **settings), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the model to evaluate could not be trained:\n{done.stderr}")
    return run_dir / "final"
