"""Memory of training steps: the estimate compared with the measured peak, each in a fresh process on the CPU.

    python -m bench.memory                 # all combinations, as tables for docs/memory.md
    python -m bench.memory --only checked  # those that were not used to tune the estimate

Models have random weights. Freed memory goes back to the kernel at once, so the peak is that of the tensors.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.training.memory.memory_estimate import estimate
from whisper_ft.training.memory.model_dimensions import OPENAI_MODELS, ModelDimensions
from whisper_ft.training.memory.workload import Workload

UPDATES = 2  # the optimizer makes its moments in the first
RETURNS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
"""glibc's settings by which freed blocks of over 256 kB leave the process."""


@dataclass(frozen=True)
class Combination:
    """A model, a pass and settings, whose memory is estimated and measured."""

    model: str
    windows: int
    labels: int
    passes: int
    """Passes of an update."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of a run by dotted name."""
    device: str = "cpu"

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        return f"{self.model}, {self.windows} × {self.labels} tokens, {passes}; {settings or 'defaults'}"

    @property
    def config(self) -> TrainingConfig:
        """Settings of a run with this combination."""
        size = self.windows * self.passes
        own = {"batch.size": size, "batch.per_device": self.windows, "precision": "fp32", "device": self.device}
        return with_values(TrainingConfig(), own | self.settings)

    @property
    def work(self) -> Workload:
        """Workload of a step."""
        model, on_gpu = OPENAI_MODELS[self.model], self.device != "cpu"
        work = Workload.of(self.config, model, on_gpu=on_gpu, windows=self.windows, processes=1)
        return work.with_labels(self.labels)


LORA = {"adapter.kind": "lora"}
TUNED = (
    Combination("base", 2, 100, 2),
    Combination("base", 2, 448, 1),
    Combination("tiny", 4, 448, 2, {"precision": "bf16"}),
    Combination("base", 4, 200, 2, {"model.gradient_checkpointing": True}),
    Combination("tiny", 4, 100, 2, LORA),
    Combination("base", 2, 200, 2, {"adapter.base": "nf4", "precision": "bf16"} | LORA),
    Combination("base", 4, 448, 2, {"model.freeze": ["encoder"]}),
    Combination("tiny", 2, 200, 1, {"model.attention": "eager"}),
)
CHECKED = (
    Combination("small", 1, 448, 1),
    Combination("base", 3, 100, 2, {"model.gradient_checkpointing": True, "optim.name": "adafactor"}),
    Combination("base", 3, 300, 2, {"precision": "bf16"}),
    Combination("base", 3, 200, 2, {"adapter.targets": "attention"} | LORA),
    Combination("tiny", 6, 100, 1, {"adapter.base": "int8", "precision": "bf16"} | LORA),
    Combination("tiny", 8, 448, 2, {"model.freeze": ["encoder"], "optim.name": "sgd"}),
    Combination("base", 4, 448, 2, {"adapter.base": "nf4", "model.gradient_checkpointing": True} | LORA),
    Combination("tiny", 3, 448, 2, {"model.attention": "eager", "loss.label_smoothing": 0.1}),
)
"""Combinations of which none was looked at while the estimate was written."""
SETS = {"tuned": TUNED, "checked": CHECKED}


def measured_bytes(combination: Combination) -> int:
    """Measure the peak of a combination in a fresh process, without the memory of the program itself."""
    argument = json.dumps(vars(combination))
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", "--child", argument],
        env=os.environ | RETURNS_MEMORY | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return int(done.stdout.splitlines()[-1])


def rows(combinations: tuple[Combination, ...]) -> Iterator[str]:
    """Yield a row of the table for each combination."""
    for combination in combinations:
        guess, measured = estimate(combination.work).total, measured_bytes(combination)
        yield f"| {combination} | {guess / 1e9:.2f} | {measured / 1e9:.2f} | {guess / measured - 1:+.0%} |"


def train(combination: Combination) -> int:
    """Train a model of random weights in this process, and return the growth of its memory to the peak, in bytes.

    A micro model is trained first, so that all libraries are loaded. On a GPU the result is the peak of the tensors.
    """
    import torch

    from whisper_ft.runtime.host_memory import resident_bytes, resident_peak

    micro = ModelDimensions(1, 1, 32, 2, 80, 1000, 64, 64)
    _updates(_model(combination.config, micro), replace(combination, windows=1, labels=8))
    start = resident_bytes()
    model = _model(combination.config, OPENAI_MODELS[combination.model])
    if combination.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        _updates(model, combination)
        return torch.cuda.max_memory_allocated()
    with resident_peak() as peak:
        _updates(model, combination)
    return peak.bytes - start


def _model(config: TrainingConfig, dimensions: ModelDimensions) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    shape = WhisperConfig(
        encoder_layers=dimensions.encoder_layers, decoder_layers=dimensions.decoder_layers, d_model=dimensions.width,
        encoder_attention_heads=dimensions.heads, decoder_attention_heads=dimensions.heads,
        encoder_ffn_dim=dimensions.encoder_inner, decoder_ffn_dim=dimensions.decoder_inner,
        num_mel_bins=dimensions.mel_bins, vocab_size=dimensions.vocabulary, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, decoder_start_token_id=0, attn_implementation=config.model.attention,
    )  # fmt: skip
    return WhisperForConditionalGeneration(shape)


def _updates(model: Any, combination: Combination) -> None:
    import torch

    from whisper_ft.models.adapters.lora import inject, lora_config
    from whisper_ft.models.adapters.quantised_base import quantise
    from whisper_ft.models.whisper import AUTOCAST, freeze, parameters_by_name
    from whisper_ft.optim.loss import TokenLoss
    from whisper_ft.optim.optimizer import build_optimizer

    config, windows, labels = combination.config, combination.windows, combination.labels
    model.model.encoder.embed_positions.requires_grad_(False)
    freeze(model, config.model.freeze)
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.adapter.enabled:
        quantise(model, config.adapter.base, config.precision, torch.device(combination.device))
        inject(model, lora_config(config.adapter, config.model.freeze), seed=1)
    model.to(combination.device)
    parameters = parameters_by_name(model)
    optimizer = build_optimizer(parameters, with_values(config.optim, {"lr": 1e-5}))
    loss = TokenLoss(model, config.loss.label_smoothing).train()
    tokens = torch.full((windows, labels), 220, device=combination.device)
    for _ in range(UPDATES):
        for _ in range(combination.passes):
            features = torch.randn(
                windows, model.config.num_mel_bins, 2 * model.config.max_source_positions, device=combination.device
            )
            with torch.autocast(combination.device, AUTOCAST[config.precision], enabled=config.precision != "fp32"):
                losses = loss(features, tokens, tokens, torch.arange(windows * labels, device=combination.device))
            torch.autograd.backward(losses)
            del losses
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Print the tables, or the measurement of a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETS, help="one of the two sets of combinations")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(train(Combination(**json.loads(args.child))))
        return
    for name in [args.only] if args.only else SETS:
        print(f"| {name} | estimate, GB | measured, GB | difference |\n|---|---|---|---|", flush=True)
        for row in rows(SETS[name]):
            print(row, flush=True)


if __name__ == "__main__":
    main()
