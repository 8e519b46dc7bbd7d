"""What the contenders share: corpus, untrained model, train.py's batches in one file, and a model that has learnt."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.sizes import Effort, Size
from bench.tasks import BATCH_TENSORS, TrainingTask

if TYPE_CHECKING:
    from whisper_ft.training.run import Run

ROOT = Path(__file__).parents[1]
LANGUAGE = "be"


def corpus(scratch: Path, effort: Effort) -> Path:
    """The demo's corpus where `make demo` has left it, else the same sentences written anew."""
    from whisper_ft.cli.demo.corpus import DESCRIPTION, write_corpus

    made = ROOT / "demo-data" / LANGUAGE
    wanted = {"train": effort.train_utterances, "test": effort.test_utterances}
    if (made / DESCRIPTION).exists():
        described = json.loads((made / DESCRIPTION).read_text(encoding="utf-8"))
        if wanted.items() <= described.items():
            return made
    write_corpus(scratch / "corpus", LANGUAGE, validation=2, **wanted)
    return scratch / "corpus"


def write_model(size: Size, folder: Path) -> None:
    """The untrained model of a size."""
    from whisper_ft.cli.demo.model import write_micro_whisper

    if not write_micro_whisper(folder, size.shape) or size.vocabulary is None:
        return
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder)
    model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    model.save_pretrained(folder)


def run_of(task: TrainingTask, folder: Path, **settings: Any) -> "Run":
    """What train.py holds in a run of the task in that folder."""
    import accelerate

    from collator import SpeechCollator
    from normalizers import get_normalizer
    from whisper_ft.config.data import DataConfig
    from whisper_ft.config.evaluation import EvalConfig
    from whisper_ft.config.training import BatchConfig, ModelConfig, OptimConfig, ScheduleConfig, TrainingConfig
    from whisper_ft.models.whisper import quiet_libraries
    from whisper_ft.runtime.collectives import Collectives
    from whisper_ft.runtime.signals import StopRequest
    from whisper_ft.training.directory import RunDir
    from whisper_ft.training.run import Run

    quiet_libraries()
    given: dict[str, Any] = {"steps": task.steps, "device": "cpu", "eval": EvalConfig(every=0)}
    given |= {"optim": OptimConfig(lr=task.learning_rate), "schedule": ScheduleConfig("constant", 0)} | settings
    config = TrainingConfig(
        run_dir=folder,
        model=ModelConfig(task.model),
        data=DataConfig(path=task.data, language=task.language),
        batch=BatchConfig(task.batch, task.batch),
        **given,
    )
    accelerator = accelerate.Accelerator(cpu=True)
    return Run(config, accelerator, Collectives(), RunDir(folder), StopRequest(), SpeechCollator, get_normalizer)


def write_batches(task: TrainingTask) -> None:
    """Save the batches that train.py trains on in the task's steps, drawn from its own stream."""
    from safetensors.torch import save_file

    stream = run_of(task, Path(task.scratch)).stream(0)
    tensors = {}
    for step in range(task.steps):
        (batch,) = stream.draw().micro_batches
        for name in BATCH_TENSORS:
            tensors[f"{step}.{name}"] = getattr(batch, name)
    save_file(tensors, task.batches)


def repeated(data: Path, folder: Path, copies: int) -> Path:
    """The parquet files of a folder so many times, under other names."""
    folder.mkdir(exist_ok=True)
    for copy in range(copies):
        for path in data.glob("*.parquet"):
            (folder / f"{copy:04d}-{path.name}").symlink_to(path.resolve())
    return folder


def beginning(data: Path, folder: Path, utterances: int) -> Path:
    """The first utterances of a folder of parquet files, in one of its own."""
    import pyarrow.parquet as pq

    if not folder.exists():
        folder.mkdir()
        first = sorted(data.glob("*.parquet"))[0]
        pq.write_table(pq.read_table(first).slice(0, utterances), folder / first.name)
    return folder


def reluctant(model: Path, folder: Path, by: float) -> Path:
    """A copy of a model that finds its end token less likely, by about so much of a logit.

    It would find timestamps more likely, which end a segment for `generate`: its generation config forbids them.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    shutil.copytree(model, folder)
    whisper = WhisperForConditionalGeneration.from_pretrained(model)
    end = whisper.proj_out.weight[whisper.config.eos_token_id].detach()
    with torch.no_grad():
        whisper.model.decoder.layer_norm.bias -= by * end / end.dot(end)
    generation = whisper.generation_config
    generation.suppress_tokens = list(range(generation.no_timestamps_token_id + 1, whisper.config.vocab_size))
    whisper.save_pretrained(folder)
    return folder


def teach(size: Size, model: Path, data: Path, run_dir: Path, steps: int) -> Path:
    """Train the model that is evaluated, unless that was done, and give its folder."""
    from bench.ours import command

    if (run_dir / "final").exists():
        return run_dir / "final"
    task = TrainingTask(str(model), str(data), "", str(run_dir), LANGUAGE, size.batch, steps, 0, 0, size.learning_rate)
    settings = {"schedule__kind": "linear", "schedule__warmup": 0.1, "log__every": 0}
    done = subprocess.run(command(task, run_dir, **settings), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the model to evaluate could not be trained:\n{done.stderr}")
    return run_dir / "final"
