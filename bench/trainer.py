"""Contender: Seq2SeqTrainer with streamed data, arranged as in the scripts that people copy.

Streamed parquet goes through `map` to log-mels and token ids in torch format. A shuffle buffer of 500 finished examples
and a filter by length follow. The collator pads, and cuts the start token.

Two things are adapted to today's libraries: soundfile and soxr decode inside `map`, and `processing_class` is used. It
runs on the CPU in float32. The corpus repeats without end, so the buffer is filled once and not in each epoch. This is
in the Trainer's favour.
"""

import io
import time
from pathlib import Path
from typing import Any

import datasets
import soundfile
import soxr
import torch
import transformers
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from bench.tasks import TrainingTask, answer, from_argument, training_result
from bench.watch import Watch, process_start

SHUFFLE_BUFFER = 500  # examples
MAX_SECONDS = 20.0
ALONE: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}
"""Arguments that switch off everything but the training, on the CPU."""


def streamed_examples(task: TrainingTask, processor: Any) -> Any:
    """Return an endless stream of log-mels and labels."""
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        waveform, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        if rate != extractor.sampling_rate:
            waveform = soxr.resample(waveform, rate, extractor.sampling_rate)
        features = extractor(waveform, sampling_rate=extractor.sampling_rate).input_features[0]
        return {
            "input_features": features,
            "input_length": len(waveform),
            "labels": tokenizer(row["sentence"]).input_ids,
        }

    def is_audio_in_length_range(length: int) -> bool:
        return bool(0 < length < MAX_SECONDS * extractor.sampling_rate)

    files = sorted(str(path) for path in Path(task.data).glob("*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    columns = list(rows.features)
    rows = rows.cast_column("audio", datasets.Audio(decode=False)).repeat(None)
    examples = rows.map(prepare, remove_columns=columns).with_format("torch")
    examples = examples.shuffle(buffer_size=SHUFFLE_BUFFER, seed=1)
    return examples.filter(is_audio_in_length_range, input_columns=["input_length"])


class Collator:
    """Function that pads features and labels, and cuts the start token, because the model adds one again."""

    def __init__(self, processor: Any, start_token: int) -> None:
        self._processor, self._start_token = processor, start_token

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """Return the batch of some examples."""
        features = [{"input_features": example["input_features"]} for example in examples]
        batch = self._processor.feature_extractor.pad(features, return_tensors="pt")
        padded = self._processor.tokenizer.pad(
            [{"input_ids": example["labels"]} for example in examples], return_tensors="pt"
        )
        labels = padded["input_ids"].masked_fill(padded.attention_mask.ne(1), -100)
        if (labels[:, 0] == self._start_token).all().cpu().item():
            labels = labels[:, 1:]
        batch["labels"] = labels
        return batch


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Callback that records the times at which the model is loaded and each step ends."""

    def __init__(self) -> None:
        self.ready = 0.0
        self.step_ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the time after an update."""
        self.step_ends.append(time.time())


def trainer_of(task: TrainingTask, clock: Clock, **arguments: Any) -> Any:
    """Make the Trainer of the recipe, with its model loaded."""
    transformers.set_seed(1)
    processor = WhisperProcessor.from_pretrained(task.model, language=task.language, task="transcribe")
    model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32)
    clock.ready = time.time()
    settings: dict[str, Any] = {
        "output_dir": task.scratch,
        "per_device_train_batch_size": task.batch,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": task.steps,
        "logging_steps": min(25, task.steps),
        "dataloader_num_workers": task.workers,
        **ALONE,
    }
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**(settings | arguments)),
        train_dataset=streamed_examples(task, processor),
        data_collator=Collator(processor, model.config.decoder_start_token_id),
        processing_class=processor.feature_extractor,
        callbacks=[clock],
    )


def main() -> None:
    """Train, and print the result."""
    task = from_argument(TrainingTask)
    transformers.logging.set_verbosity_error()
    clock = Clock()
    with Watch() as watch:
        trainer = trainer_of(task, clock)
        trainer.train()
    loss = [row["loss"] for row in trainer.state.log_history if "loss" in row][-1]
    answer(training_result(task, process_start(), clock.ready, clock.step_ends, float(loss)) | watch.result())


if __name__ == "__main__":
    main()
