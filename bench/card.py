"""Contender for a GPU: measures the speed of train.py, the wait for data, memory, and MFU (model FLOPs utilisation).

MFU compares the matrix products of the model with the speed of the card at large matrix products. That speed is
measured here, not taken from a data sheet. Definition: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
"""

import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperConfig, WhisperForConditionalGeneration

from bench.log import logged_steps, pace
from bench.ours import command, run_watched
from bench.tasks import BATCH_TENSORS, CardTask, answer, from_argument
from whisper_ft.models.whisper import AUTOCAST
from whisper_ft.optim.loss import TokenLoss

ORDER = {"cuda": 8192, "cpu": 512}  # rows and columns of the multiplied matrices
PRODUCTS = 20  # timed multiplications


def product_rate(device: str, precision: str) -> float:
    """Measure the operations per second of large matrix products; a multiplication with its addition counts as two."""
    n = ORDER[device]
    left, right = (torch.randn(n, n, device=device, dtype=AUTOCAST[precision]) for _ in range(2))

    def seconds(products: int) -> float:
        begin = time.perf_counter()
        for _ in range(products):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    seconds(3)  # warm-up
    return 2 * n**3 * PRODUCTS / seconds(PRODUCTS)


def step_operations(task: CardTask, step: int) -> int:
    """Count the operations of forward and backward for the batch of a step.

    The operations of one row are counted, and multiplied by the number of rows.
    """
    with safe_open(task.batches, "pt", device=task.device) as batches:
        tensors = [batches.get_tensor(f"{step}.{name}") for name in BATCH_TENSORS]
    features, decoder_input_ids, labels, predicted = tensors
    rows = len(features)
    # The number of predicted labels matters for the count; their positions do not.
    positions = torch.arange(len(predicted) // rows, device=predicted.device)
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(task.model)).to(task.device)
    with FlopCounterMode(display=False) as counter:
        TokenLoss(model)(features[:1], decoder_input_ids[:1], labels[:1], positions).backward()
    return int(counter.get_total_flops()) * rows


def main() -> None:
    """Train in a child process, and print the result."""
    task = from_argument(CardTask)
    run_dir = Path(task.scratch, "run")
    argv = command(task, run_dir, device=task.device, precision=task.precision)
    moments, _ = run_watched(argv, task.steps)
    seconds = [end - begin for begin, end in pairwise(moments.step_ends[task.unmeasured_steps - 1 :])]
    rows = logged_steps(run_dir)[task.unmeasured_steps :]
    rate = product_rate(task.device, task.precision)
    operations = step_operations(task, task.unmeasured_steps)
    answer(
        {
            "device": torch.cuda.get_device_name() if task.device == "cuda" else "cpu",
            "utterances_per_second": round(task.batch / mean(seconds), 2),
            "data_wait": pace(rows, task.batch)[1],
            "memory_gb": max(row["memory_gb"] for row in rows),
            "skipped": rows[-1]["skipped"],
            "operations_per_step": operations,
            "operations_per_second_of_products": round(rate),
            "mfu": round(operations / median(seconds) / rate, 4),
        }
    )


if __name__ == "__main__":
    main()
