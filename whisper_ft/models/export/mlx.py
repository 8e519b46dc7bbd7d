"""Writer of MLX models, which mlx-whisper reads on Apple's processors. The format needs no package of MLX."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from whisper_ft.models.export.openai_layout import dimensions, openai_tensors, refuse_unlike_openai
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.errors import UsageError

POSITIONS = "encoder.positional_embedding"
MAX_TIMESCALE = 10_000  # of the encoder's positions in OpenAI's code
MAX_POSITION_ERROR = 1e-3  # OpenAI stored its sinusoids in float16


def refuse(loaded: LoadedWhisper) -> None:
    """Raise UsageError if mlx-whisper cannot take the model.

    mlx-whisper computes the encoder's positions itself, so a model with other positions is refused, too.
    """
    refuse_unlike_openai(loaded, "mlx-whisper")
    positions = loaded.model.model.encoder.embed_positions.weight.detach().cpu()
    error = float((positions - sinusoids(*positions.shape)).abs().max())
    if error > MAX_POSITION_ERROR:
        raise UsageError(
            f"mlx-whisper takes encoder positions that are sinusoids, and those of this model differ from them by up "
            f"to {error:.2g}; other formats keep them"
        )


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Return the encoder's positions [length, channels] in OpenAI's code: half sines, then half cosines."""
    steps = torch.arange(channels // 2, dtype=torch.float64) / (channels // 2 - 1)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * MAX_TIMESCALE**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write weights.safetensors and config.json into a folder. `quantization` is float32 or float16.

    Kernels of convolutions are [out, width, in], as MLX has them. The alignment heads are a tensor of their own.
    """
    model = loaded.model
    tensors = openai_tensors(model, getattr(torch, quantization))
    tensors.pop(POSITIONS)
    tensors = {mlx_name(name): tensor for name, tensor in tensors.items()}
    for name in ("encoder.conv1.weight", "encoder.conv2.weight"):
        tensors[name] = tensors[name].transpose(1, 2).contiguous()
    if heads := getattr(model.generation_config, "alignment_heads", None):
        tensors["alignment_heads"] = torch.tensor(heads, dtype=torch.int32)
    save_file(tensors, out / "weights.safetensors", {"format": "mlx"})
    config = {"model_type": "whisper", **dimensions(model.config)}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def mlx_name(name: str) -> str:
    """Return the name in MLX of a tensor that has a name of OpenAI's: a number stands only for a block there."""
    return name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")
