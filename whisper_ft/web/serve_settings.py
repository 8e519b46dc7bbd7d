"""Settings of the server. torch is not imported."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from whisper_ft.config.evaluation import Device, Precision

LOCAL_NAME = "localhost"


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the server, as the command line gives them."""

    served: str
    """Run, folder of runs, folder of a model, or name of a model on the Hub."""
    compare: str | None = None
    """Second model to choose from: the same, or an id of the served run such as `final`."""
    base: str | None = None
    """Base of the served adapters, if it is not where their files name it."""
    hub_adapters: Mapping[str, str] = field(default_factory=dict)
    """Folders to which the adapters on the Hub among the models were downloaded, by name."""
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    """Secret that each request must have; None: none is needed."""
    device: Device = "auto"
    precision: Precision = "auto"
    batch_size: int | None = None
    """Windows at a time; None: 16 on a GPU, 4 on a CPU."""
    max_mb: int = 2048
    """Largest upload, in MB."""
    queue: int = 8
    """Most requests that are uploaded, wait or are decoded at the same time."""
    corrections: Path = Path("corrections")
    """Folder for corrected transcripts and their audio."""


def is_loopback(host: str) -> bool:
    """Return True for a name or address of this machine that no other machine reaches."""
    if host.lower() == LOCAL_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
