"""The same bits from several threads: what a resumed run on a CPU rests on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from whisper_ft.cli.demo.model import Shape, write_micro_whisper

GRADIENTS = """
import sys, torch
from transformers import WhisperForConditionalGeneration
from whisper_ft.runtime.processes import start_processes

start_processes("cpu")
torch.set_num_threads(2)
model = WhisperForConditionalGeneration.from_pretrained(sys.argv[1])
features, tokens = torch.rand(16, model.config.num_mel_bins, 500), torch.randint(0, 300, (16, 30))
sums = set()
for _ in range(4):
    model.zero_grad()
    model(input_features=features, decoder_input_ids=tokens, use_cache=False).logits.square().mean().backward()
    sums.add(tuple(float(p.grad.double().sum()) for p in model.parameters() if p.requires_grad))
print(len(sums))
"""


@pytest.mark.long
def test_two_threads_give_the_same_gradient_every_time(tmp_path: Path):
    """The gradient of the decoder's positions had 13 values in 15 passes, because threads added it up in any order."""
    write_micro_whisper(tmp_path / "model", Shape(d_model=128))
    done = subprocess.run(
        [sys.executable, "-c", GRADIENTS, str(tmp_path / "model")],
        cwd=ROOT,
        env=environment(1) | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
