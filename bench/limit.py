"""Contender: the bare compute. Batches are in memory; forward, loss of label tokens, backward, clip, AdamW, no more.

Without a file of batches it draws them as train.py does: what is left of train.py's step then is its bookkeeping.
"""

import gc
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from bench.prepare import run_of
from bench.tasks import BATCH_TENSORS, TrainingTask, answer, from_argument, training_result
from bench.watch import Watch, process_began
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.runtime.malloc import keep_freed_memory

Tensors = tuple[torch.Tensor, ...]  # features, decoder input ids, labels, which of them are predicted


def held(task: TrainingTask) -> list[Tensors]:
    """Every batch, in memory of its own: what `load_file` gives is read from the disk at the first touch."""
    tensors = {name: tensor.clone() for name, tensor in load_file(task.batches).items()}
    return [tuple(tensors[f"{step}.{name}"] for name in BATCH_TENSORS) for step in range(task.steps)]


def drawn(task: TrainingTask) -> Iterator[Tensors]:
    """The same batches, each made when it is asked for."""
    stream = run_of(task, Path(task.scratch)).stream(0)
    while True:
        (batch,) = stream.draw().micro_batches
        yield batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted


def stepping(
    task: TrainingTask,
    *,
    attention: str = "sdpa",
    fused: bool = True,
    loss: Callable[[Any], torch.nn.Module] = TokenLoss,
    compiled: bool = False,
) -> Callable[[Tensors], torch.Tensor]:
    """An update of the task's model on a batch, as train.py does it unless told otherwise; gives the mean loss."""
    model = WhisperForConditionalGeneration.from_pretrained(
        task.model, dtype=torch.float32, attn_implementation=attention
    ).train()
    model.model.encoder.embed_positions.requires_grad_(False)  # as train.py: sinusoids that are not trained
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=task.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=fused
    )
    of_batch: Callable[..., torch.Tensor] = torch.compile(loss(model)) if compiled else loss(model)

    def step(batch: Tensors) -> torch.Tensor:
        features, decoder_input_ids, labels, predicted = batch
        mean = of_batch(features, decoder_input_ids, labels, predicted) / len(predicted)
        torch.autograd.backward(mean)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return mean.detach()

    return step


def main() -> None:
    """Train on the batches of train.py, and report."""
    task = from_argument(TrainingTask)
    in_memory = held(task) if task.batches else []
    kept = sum(tensor.nbytes for batch in in_memory[1:] for tensor in batch)  # a training needs one at a time
    batches = iter(in_memory) if in_memory else islice(drawn(task), task.steps)
    step_ends, waits = [], []
    keep_freed_memory()  # as train.py
    with Watch() as watch:
        step = stepping(task)
        gc.freeze()  # as train.py
        ready = begin = time.time()
        for batch in batches:
            waits.append(time.time() - begin)
            loss = step(batch)
            begin = time.time()
            step_ends.append(begin)
    measured = task.unmeasured_steps
    waited = sum(waits[measured:]) / (step_ends[-1] - step_ends[measured - 1])
    result = training_result(task, process_began(), ready, step_ends, float(loss))
    answer(result | {"data_wait": round(waited, 4)} | watch.result(minus_bytes=kept))


if __name__ == "__main__":
    main()
