"""Preparation of shared inputs: corpus, untrained model, train.py's batches in one file, and a trained model."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.sizes import Effort, Size
from bench.tasks import BATCH_TENSORS, TrainingTask

if TYPE_CHECKING:
    from whisper_ft.data.loader import TrainStream

ROOT = Path(__file__).parents[1]
LANGUAGE = "be"


def corpus(scratch: Path, effort: Effort) -> Path:
    """Return the folder of the demo's corpus. Its sentences are synthesised here if `make demo` has not run."""
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
    """Write the untrained model of a size."""
    from whisper_ft.cli.demo.model import write_micro_whisper

    if not write_micro_whisper(folder, size.shape) or size.vocabulary is None:
        return
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder)
    model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    model.save_pretrained(folder)


def stream_of(task: TrainingTask, folder: Path) -> "TrainStream":
    """Open the stream of the task's steps, as train.py does."""
    import torch

    from collator import SpeechCollator
    from whisper_ft.config.data import DataConfig
    from whisper_ft.config.evaluation import EvalConfig
    from whisper_ft.config.optimization import OptimConfig, ScheduleConfig
    from whisper_ft.config.training import BatchConfig, ModelConfig, TrainingConfig
    from whisper_ft.models.whisper import quiet_libraries
    from whisper_ft.training.data import open_stream, open_training_data
    from whisper_ft.training.learner import build_learner

    quiet_libraries()
    config = TrainingConfig(
        run_dir=folder,
        steps=task.steps,
        device="cpu",
        model=ModelConfig(task.model),
        data=DataConfig(path=task.data, language=task.language),
        batch=BatchConfig(task.batch, task.batch),
        optim=OptimConfig(lr=task.learning_rate),
        schedule=ScheduleConfig("constant", 0),
        eval=EvalConfig(every=0),
    )
    data = open_training_data(config, config.data, folder / "index")
    learner = build_learner(config, torch.device("cpu"), None, print)
    return open_stream(data, config, learner.encode, learner.log_mel, learner.collator(SpeechCollator), 0, print)


def write_batches(task: TrainingTask) -> None:
    """Write the batches of the task's steps to a file, drawn from train.py's own stream."""
    from safetensors.torch import save_file

    stream = stream_of(task, Path(task.scratch))
    tensors = {}
    for step in range(task.steps):
        (batch,) = stream.draw().micro_batches
        for name in BATCH_TENSORS:
            tensors[f"{step}.{name}"] = getattr(batch, name)
    save_file(tensors, task.batches)


def first_utterances(data: Path, folder: Path, utterances: int) -> Path:
    """Copy the first utterances of a folder's first parquet file to another folder, and return that folder."""
    import pyarrow.parquet as pq

    if not folder.exists():
        folder.mkdir()
        first = sorted(data.glob("*.parquet"))[0]
        pq.write_table(pq.read_table(first).slice(0, utterances), folder / first.name)
    return folder


def joined_clips(data: Path, folder: Path, least_seconds: float = 3.0, most_seconds: float = 4.5) -> Path:
    """Join utterances of a corpus, in order, to clips of 3 to 4.5 s with the texts of both, and return their folder.

    An utterance that finds no partner is left out.
    """
    if folder.exists():
        return folder
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile

    from whisper_ft.data.audio.decode import decode

    rate, clips, sound, text = 16_000, list[dict[str, object]](), np.zeros(0, np.float32), ""
    rows = (row for file in sorted(data.glob("*.parquet")) for row in pq.read_table(file).to_pylist())
    for row in rows:
        utterance = decode(row["audio"]["bytes"], rate, most_seconds)
        if len(sound) + len(utterance) > most_seconds * rate:
            sound, text = utterance, row["sentence"]
        else:
            sound, text = np.concatenate([sound, utterance]), f"{text} {row['sentence']}".strip()
        if len(sound) >= least_seconds * rate:
            encoded = io.BytesIO()
            soundfile.write(encoded, sound, rate, format="FLAC")
            clips.append({"audio": {"bytes": encoded.getvalue(), "path": None}, "sentence": text})
            sound, text = sound[:0], ""
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(clips), folder / "clips.parquet", row_group_size=50)
    return folder


def train_model(size: Size, model: Path, data: Path, run_dir: Path, steps: int) -> Path:
    """Return the folder of a model to evaluate, which is trained on the first call."""
    from bench.ours import command

    if (run_dir / "final").exists():
        return run_dir / "final"
    task = TrainingTask(str(model), str(data), "", str(run_dir), LANGUAGE, size.batch, steps, 0, 0, size.learning_rate)
    settings = {"schedule__kind": "linear", "schedule__warmup": 0.1, "log__every": 0}
    done = subprocess.run(command(task, run_dir, **settings), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the model to evaluate could not be trained:\n{done.stderr}")
    return run_dir / "final"
