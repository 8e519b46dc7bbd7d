"""A micro model that writes a different token at each position, and noise for it to transcribe."""

from pathlib import Path
from typing import Any

import torch

from whisper_ft.data.types import Row
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.models.whisper import load_whisper


def wild(micro_whisper: Path) -> tuple[Any, Any]:
    """The micro model, with weights so large that no two tokens in a row are equal, and its processor."""
    model, processor = load_whisper(str(micro_whisper))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(8 if "layers" in name else 3)
    return model.eval(), processor


def noise(model: Any, index: int, **place: Any) -> AudioWindow:
    """A window of noise, which depends on its index."""
    frames = 2 * model.config.max_source_positions
    features = torch.rand(model.config.num_mel_bins, frames, generator=torch.Generator().manual_seed(index))
    return AudioWindow(index, Row(id=f"row-{index}", audio=b"", text="тэкст"), features, **({"seconds": 4.0} | place))
