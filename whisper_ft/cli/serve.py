"""Serve a model to browsers and programs on this machine: `python -m whisper_ft serve RUN|MODEL [--compare MODEL]`."""

import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from whisper_ft.config.evaluation import Device, Precision
from whisper_ft.config.local_paths import MODEL_PARTS, looks_local
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.exit_codes import FINISHED
from whisper_ft.runtime.printable import printable, say
from whisper_ft.training.preflight import refuse_missing_gpu, refuse_missing_model
from whisper_ft.web.serve_settings import ServeSettings, is_loopback

PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
"""Packages of the extra `web`, by the name of their module."""
TOKEN = "WHISPER_FT_TOKEN"  # variable with the token, for a server that keeps it over its starts
NICENESS = 10
"""Priority below that of other programs, so that a training on this machine gets the processor first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code: 0, or 2 for an argument that cannot work."""

    def program() -> None:
        settings = parse_arguments(sys.argv[1:] if argv is None else argv)
        refuse_missing_packages()  # first, because their names tell a user more than a missing model
        settings = with_hub_adapters(settings)
        refuse_missing(settings)
        serve(settings)

    return exit_code_of(program, interrupted_code=FINISHED)


def parse_arguments(argv: Sequence[str]) -> ServeSettings:
    """Parse the command line. Raises UsageError for a value that cannot work."""
    parser = Parser(
        prog="python -m whisper_ft serve",
        description="Serve a model on this machine: a page to record, upload, compare and correct, and the "
        "transcription routes of OpenAI's API. A run may train meanwhile; each new best model is used at once.",
    )
    parser.add_argument(
        "served", metavar="RUN|MODEL", help="run, folder of runs, folder of a model, or name of a model on the Hub"
    )
    parser.add_argument("--compare", metavar="MODEL", help="second model (the one from which the run started)")
    parser.add_argument("--base", metavar="MODEL", help="base of the served adapters (the one that their files name)")
    parser.add_argument(
        "--host", default=ServeSettings.host, help="address to listen on; another than %(default)s needs a token"
    )
    parser.add_argument("--port", type=int, default=ServeSettings.port, help="0 chooses a free one (%(default)s)")
    parser.add_argument(
        "--token",
        action="store_true",
        help=f"ask for a token on {ServeSettings.host}, too, as the variable {TOKEN} does",
    )
    _add_limits(parser)
    args = vars(parser.parse_args(argv))
    for name, least, most in (("port", 0, 65_535), ("batch_size", 1, 1024), ("max_mb", 1, 10**6), ("queue", 1, 1000)):
        if args[name] is not None and not least <= args[name] <= most:
            raise UsageError(f"--{name} {args[name]}: expected a number from {least} to {most}")
    own = os.environ.get(TOKEN)
    wants_token = args.pop("token") or own or not is_loopback(args["host"])
    token = own or secrets.token_urlsafe(16) if wants_token else None
    return ServeSettings(**args, token=token)


def _add_limits(parser: Parser) -> None:
    default = ServeSettings
    parser.add_argument(
        "--device", choices=get_args(Device), default=default.device, help="auto takes a GPU that no served run uses"
    )
    parser.add_argument(
        "--precision", choices=get_args(Precision), default=default.precision, help="as in evaluate.py (%(default)s)"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="windows at a time (16 on a GPU, 4 on a CPU)")
    parser.add_argument("--max_mb", type=int, default=default.max_mb, metavar="N", help="largest upload (%(default)s)")
    parser.add_argument(
        "--queue", type=int, default=default.queue, metavar="N", help="most requests at the same time (%(default)s)"
    )
    parser.add_argument(
        "--corrections", type=Path, default=default.corrections, metavar="DIR",
        help="folder for corrected transcripts (%(default)s)",
    )  # fmt: skip


def with_hub_adapters(settings: ServeSettings) -> ServeSettings:
    """Return the settings with the adapters among the models that are on the Hub, which are downloaded."""
    given = [name for name in (settings.served, settings.compare) if name]
    names = [name for name in given if not Path(name).exists() and not looks_local(name, MODEL_PARTS)]
    if not names:
        return settings
    from whisper_ft.models.adapters.adapted_whisper import local_adapter

    folders = {name: str(folder) for name in names if (folder := local_adapter(name)) is not None}
    return replace(settings, hub_adapters=folders)


def refuse_missing_packages() -> None:
    """Raise UsageError if a package is missing."""
    if missing := [package for module, package in PACKAGES.items() if find_spec(module) is None]:
        raise UsageError(f"{', '.join(missing)}: not installed; pip install {' '.join(missing)}")


def refuse_missing(settings: ServeSettings) -> None:
    """Raise UsageError if the model or the GPU is missing."""
    from whisper_ft.training.run_folder import is_run
    from whisper_ft.web.models_of_run import COMPARE, ServedModels

    models, compare = ServedModels(settings.served, settings.compare), settings.compare
    if not models.runs and settings.served not in settings.hub_adapters:
        _refuse_unusable(settings.served)
    if compare in settings.hub_adapters:
        compare = None
    if compare is not None and models.compare_id(models.choices()) == COMPARE and not is_run(Path(compare)):
        _refuse_unusable(compare)
    if settings.base is not None:
        refuse_missing_model("base", settings.base)
        has_parts = models.runs or settings.hub_adapters or any(one.kind != "whole" for one in models.choices())
        if not has_parts:
            raise UsageError(f"--base {settings.base}: has no effect, because {settings.served} is a whole model")
    refuse_missing_gpu(settings.device)


def _refuse_unusable(name: str) -> None:
    """Raise UsageError for a folder or Hub name without a usable model. Weights are not read."""
    from whisper_ft.checkpoint.record import TRAINER
    from whisper_ft.models.adapters.adapter_config import is_adapter

    if is_adapter(name) or Path(name, TRAINER).exists():
        return
    refuse_missing_model("", name)
    from whisper_ft.models.whisper import load_parts, quiet_libraries

    quiet_libraries()
    load_parts(name)


def serve(settings: ServeSettings) -> None:
    """Listen until a signal. Raises UsageError if the address cannot be listened on."""
    listener = listener_of(settings.host, settings.port)
    settings = replace(settings, port=int(listener.getsockname()[1]))
    from whisper_ft.models.whisper import quiet_libraries
    from whisper_ft.web.app import create_app, device_of
    from whisper_ft.web.http_server import HttpServer

    quiet_libraries()
    os.nice(NICENESS)
    device = device_of(settings.device, settings.served)
    app = create_app(settings, device, say)
    say(*_welcome(settings, device.type), redact=False)  # the address has the token
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    HttpServer(app).run(sockets=[listener])


def listener_of(host: str, port: int) -> socket.socket:
    """Return a socket on an address. Raises UsageError if it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # before the address is printed, so that an early request waits instead of being refused
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise UsageError(f"--host {host} --port {port}: {reason}; choose another port, or 0 for a free one") from error
    return listener


def _welcome(settings: ServeSettings, device: str) -> list[str]:
    """Return the lines that tell the user where the page is."""
    import torch

    port = settings.port
    query = "" if settings.token is None else f"?token={settings.token}"
    everywhere = settings.host in ("0.0.0.0", "::")
    host = socket.gethostname() if everywhere else f"[{settings.host}]" if ":" in settings.host else settings.host
    lines = [f"{printable(settings.served)} on {device}: http://{host}:{port}/{query}"]
    if not is_loopback(settings.host):
        lines.append(
            "browsers give the microphone to https and localhost only: use a proxy with https, or on your machine run "
            f"ssh -L {port}:localhost:{port} {host} and open http://localhost:{port}/{query}"
        )
    if settings.device == "auto" and device == "cpu" and torch.cuda.is_available():
        lines.append("a served run is training, so the GPU is left to it; --device cuda takes it all the same")
    lines.append(f"API: http://{host}:{port}/v1 (docs/web-api.md). Ctrl-C stops the server")
    return lines


if __name__ == "__main__":
    sys.exit(main())
