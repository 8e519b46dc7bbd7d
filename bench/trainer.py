"""Contender: Seq2SeqTrainer with streamed data, arranged as in the scripts that people copy.

The arrangement: parquet streamed, `map` to log-mels and token ids, torch format, a shuffle buffer of 500 finished
examples, a filter by length, a collator that pads and cuts the start token. Made to run on today's libraries (audio
decoded by soundfile and soxr inside `map`, `processing_class`), on the CPU in float32. One thing is in the Trainer's
favour: the corpus repeats without end, as a large one would, so that the buffer is filled once and not in each epoch.
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
from bench.watch import Watch, process_began

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
"""Arguments that leave nothing but the training, on the CPU."""


def streamed(task: TrainingTask, processor: Any) -> Any:
    """The training examples as an endless stream of log-mels and labels."""
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
    """Pads features and labels; cuts the start token, which the model puts in front again."""

    def __init__(self, processor: Any, start_token: int) -> None:
        self._processor, self._start_token = processor, start_token

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """The batch of some examples."""
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
    """Notes when the model is there, and when each step ends."""

    def __init__(self) -> None:
        self.ready = 0.0
        self.step_ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the update."""
        self.step_ends.append(time.time())


def trainer_of(task: TrainingTask, clock: Clock, **arguments: Any) -> Any:
    """The recipe's Trainer, with its model loaded."""
    transformers.set_seed(1)
    processor = WhisperProcessor.from_pretrained(task.model, language=task.language, task="transcribe")
    model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32)
    clock.ready = time.time()
    given: dict[str, Any] = {
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
        args=Seq2SeqTrainingArguments(**(given | arguments)),
        train_dataset=streamed(task, processor),
        data_collator=Collator(processor, model.config.decoder_start_token_id),
        processing_class=processor.feature_extractor,
        callbacks=[clock],
    )


def main() -> None:
    """Train, and report."""
    task = from_argument(TrainingTask)
    transformers.logging.set_verbosity_error()
    clock = Clock()
    with Watch() as watch:
        trainer = trainer_of(task, clock)
        trainer.train()
    loss = [row["loss"] for row in trainer.state.log_history if "loss" in row][-1]
    answer(training_result(task, process_began(), clock.ready, clock.step_ends, float(loss)) | watch.result())


if __name__ == "__main__":
    main()
