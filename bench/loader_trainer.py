"""Contender: the data of the Trainer's recipe alone: streamed parquet, map, shuffle, filter, collator.

The buffer of the shuffle is filled before the clock runs.
"""

import time
from itertools import islice

import torch
import transformers
from transformers import WhisperProcessor

from bench.tasks import TrainingTask, answer, from_argument
from bench.trainer import Collator, streamed
from bench.watch import Watch, keep_to_one_core


def main() -> None:
    """Draw the batches of the task, and report."""
    task = from_argument(TrainingTask)
    keep_to_one_core()
    transformers.logging.set_verbosity_error()
    with Watch() as watch:
        processor = WhisperProcessor.from_pretrained(task.model, language=task.language, task="transcribe")
        start = processor.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
        loader = torch.utils.data.DataLoader(
            streamed(task, processor), batch_size=task.batch, collate_fn=Collator(processor, start)
        )
        batches = iter(loader)
        for _ in range(task.unmeasured_steps):
            next(batches)
        begin = time.perf_counter()
        drawn = sum(len(batch["labels"]) for batch in islice(batches, task.steps - task.unmeasured_steps))
        seconds = time.perf_counter() - begin
    answer({"utterances_per_second": round(drawn / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
