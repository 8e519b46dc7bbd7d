"""Contenders that only prepare data, without training, on one core: `python -m bench.loader TASK ours|trainer`.

`ours` is the stream of train.py in its own process: order, read, decode, log-mel, labels, batch. `trainer` is the
Trainer's recipe: streamed parquet, map, shuffle, filter, collator. Its shuffle buffer is filled before the clock runs.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from transformers import WhisperProcessor

from bench.prepare import stream_of
from bench.tasks import TrainingTask, answer, from_argument
from bench.trainer import Collator, streamed_examples
from bench.watch import Watch, keep_to_one_core


def ours(task: TrainingTask) -> Iterator[int]:
    """Draw batches from the stream of train.py. Yields the number of utterances in each batch."""
    stream = stream_of(task, Path(task.scratch))
    while True:
        yield stream.draw().counts.utterances


def trainer(task: TrainingTask) -> Iterator[int]:
    """Draw batches as the Trainer does. Yields the number of utterances in each batch."""
    transformers.logging.set_verbosity_error()
    processor = WhisperProcessor.from_pretrained(task.model, language=task.language, task="transcribe")
    start = processor.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    loader = torch.utils.data.DataLoader(
        streamed_examples(task, processor), batch_size=task.batch, collate_fn=Collator(processor, start)
    )
    yield from (len(batch["labels"]) for batch in loader)


def main() -> None:
    """Draw the batches of the task, and print the result."""
    task = from_argument(TrainingTask)
    keep_to_one_core()
    with Watch() as watch:
        batches = {"ours": ours, "trainer": trainer}[sys.argv[2]](task)
        for _ in range(task.unmeasured_steps):
            next(batches)
        begin = time.perf_counter()
        utterances = sum(next(batches) for _ in range(task.steps - task.unmeasured_steps))
        seconds = time.perf_counter() - begin
    answer({"utterances_per_second": round(utterances / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
