"""Contender that shows the upper limit of speed: training steps on batches in memory, without reading any data.

A step is forward, loss of the label tokens, backward, clipping and AdamW.
"""

import gc
import time
from collections.abc import Callable

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from bench.tasks import BATCH_TENSORS, TrainingTask, answer, from_argument, training_result
from bench.watch import Watch, process_start
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.runtime.malloc import keep_freed_memory

Tensors = tuple[torch.Tensor, ...]  # features, decoder input ids, labels, indices of the predicted labels


def load_batches(task: TrainingTask) -> list[Tensors]:
    """Copy every batch to memory. `load_file` only maps the file, so the first access would read from the disk."""
    tensors = {name: tensor.clone() for name, tensor in load_file(task.batches).items()}
    return [tuple(tensors[f"{step}.{name}"] for name in BATCH_TENSORS) for step in range(task.steps)]


def training_step(task: TrainingTask) -> Callable[[Tensors], torch.Tensor]:
    """Make the function that updates the task's model on a batch, computed as in train.py. It returns the mean loss."""
    model = WhisperForConditionalGeneration.from_pretrained(
        task.model, dtype=torch.float32, attn_implementation="sdpa"
    ).train()
    model.model.encoder.embed_positions.requires_grad_(False)  # as in train.py: the sinusoids are not trained
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=task.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True
    )
    loss_sum = TokenLoss(model)

    def step(batch: Tensors) -> torch.Tensor:
        features, decoder_input_ids, labels, predicted = batch
        mean: torch.Tensor = loss_sum(features, decoder_input_ids, labels, predicted) / len(predicted)
        torch.autograd.backward(mean)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return mean.detach()

    return step


def main() -> None:
    """Train on the batches of train.py, and print the result."""
    task = from_argument(TrainingTask)
    batches = load_batches(task)
    extra = sum(tensor.nbytes for batch in batches[1:] for tensor in batch)  # a training holds one batch at a time
    step_ends = []
    keep_freed_memory()  # as in train.py
    with Watch() as watch:
        step = training_step(task)
        gc.freeze()  # as in train.py
        ready = time.time()
        for batch in batches:
            loss = step(batch)
            step_ends.append(time.time())
    answer(
        training_result(task, process_start(), ready, step_ends, float(loss)) | watch.result(minus_bytes=extra),
    )


if __name__ == "__main__":
    main()
