"""Loss scaler: keeps gradients inside the range of float16."""

import torch

from whisper_ft.config.optimization import ScalerConfig


def build_scaler(settings: ScalerConfig, device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Build a dynamic loss scaler if `precision` is fp16; otherwise a disabled scaler, whose scale is 1."""
    return torch.amp.GradScaler(
        device.type,
        init_scale=settings.initial,
        growth_factor=settings.growth,
        growth_interval=settings.growth_every,
        backoff_factor=settings.backoff,
        enabled=precision == "fp16",
    )
