"""What train.py makes of a GPU: utterances a second, waiting for data, memory, and how well the card is used.

That is MFU, the share of the rate of the card's own matrix products (measured here, not taken from a data sheet) that
the model's products take: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
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
from bench.ours import command, watched
from bench.tasks import BATCH_TENSORS, CardTask, answer, from_argument
from whisper_ft.models.whisper import AUTOCAST
from whisper_ft.optim.loss import TokenLoss

ORDER, PRODUCTS = {"cuda": 8192, "cpu": 512}, 20  # of the matrices that are multiplied, how often


def rate_of_products(device: str, precision: str) -> float:
    """Operations a second of large matrix products, two to a multiplication and its addition."""
    n = ORDER[device]
    left, right = (torch.randn(n, n, device=device, dtype=AUTOCAST[precision]) for _ in range(2))

    def seconds_of(products: int) -> float:
        begin = time.perf_counter()
        for _ in range(products):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    seconds_of(3)  # unmeasured
    return 2 * n**3 * PRODUCTS / seconds_of(PRODUCTS)


def operations_of_step(task: CardTask, step: int) -> int:
    """Of the forward and backward pass over the batch of a step: those of one of its rows, times their number."""
    with safe_open(task.batches, "pt", device=task.device) as batches:
        tensors = [batches.get_tensor(f"{step}.{name}") for name in BATCH_TENSORS]
    features, decoder_input_ids, labels, predicted = tensors
    rows = len(features)
    here = torch.arange(len(predicted) // rows, device=predicted.device)  # which labels they are changes no count
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(task.model)).to(task.device)
    with FlopCounterMode(display=False) as counter:
        TokenLoss(model)(features[:1], decoder_input_ids[:1], labels[:1], here).backward()
    return int(counter.get_total_flops()) * rows


def main() -> None:
    """Train in a process of its own, and report."""
    task = from_argument(CardTask)
    run_dir = Path(task.scratch, "run")
    argv = command(task, run_dir, device=task.device, precision=task.precision)
    moments, _ = watched(argv, task.steps)
    seconds = [end - begin for begin, end in pairwise(moments.step_ends[task.unmeasured_steps - 1 :])]
    rows = logged_steps(run_dir)[task.unmeasured_steps :]
    rate = rate_of_products(task.device, task.precision)
    operations = operations_of_step(task, task.unmeasured_steps)
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
