"""`python -m whisper_ft serve`: its start, its end, and its refusals."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile

from tests.adapter_files import hub_cache, own_adapter
from tests.conftest import ROOT, START_SECONDS, environment
from whisper_ft.cli.serve import main, parse_arguments


@pytest.mark.long
def test_it_serves_until_it_is_told_to_stop(micro_whisper: Path, tmp_path: Path):
    arguments = ["serve", str(micro_whisper), "--port", "0", "--token"]
    log = tmp_path / "log"
    with log.open("w") as output:
        program = [sys.executable, "-m", "whisper_ft", *arguments]
        started = subprocess.Popen(program, cwd=ROOT, env=environment(1), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (found := re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", log.read_text())) is None:
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address, token = found.groups()
        assert len(token) >= 20
        assert httpx2.get(f"{address}/healthz", timeout=START_SECONDS).json() == {"status": "ok"}
        assert httpx2.get(f"{address}/api/models").status_code == 401
        listening = {"127.0.0.1"} if sys.platform != "linux" else addresses_of(started.pid)
        assert listening == {"127.0.0.1"}
        assert os.getpriority(os.PRIO_PROCESS, started.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        with httpx2.Client(headers={"Authorization": f"Bearer {token}"}, timeout=START_SECONDS) as client:
            files = {"file": ("noise.flac", noise(600))}
            with client.stream("POST", f"{address}/api/transcribe", files=files) as answer:
                text = next(parts := answer.iter_text())
                started.send_signal(signal.SIGTERM)
                text += "".join(parts)
        assert '"stopped"' in text.split("\n\n")[-2]
    finally:
        started.send_signal(signal.SIGTERM)
    assert started.wait(30) == 0
    assert "Traceback" not in log.read_text()
    assert "ERROR" not in log.read_text()


def noise(seconds: int) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).normal(0, 0.05, 8000 * seconds).astype(np.float32)
    soundfile.write(file, samples, 8000, format="OGG", subtype="OPUS")
    return file.getvalue()


def addresses_of(pid: int) -> set[str]:
    import psutil

    return {item.laddr.ip for item in psutil.Process(pid).net_connections() if item.status == psutil.CONN_LISTEN}


def test_a_port_in_use_is_named(micro_whisper: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main([str(micro_whisper), "--port", port]) == 2
    error = capsys.readouterr().err
    assert port in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{tmp}/none"], "none"),
        (["{tmp}"], "config.json"),
        (["{tmp}/empty"], "config.json"),
        (["base"], "openai/whisper-base"),
        (["{model}", "--compare", "{tmp}"], "config.json"),
        (["{model}", "--compare", "{tmp}/none"], "none"),
        (["{model}", "--base", "{model}"], "--base"),
        (["{model}", "--base", "{tmp}/none"], "none"),
        (["{model}", "--port", "70000"], "70000"),
        (["{model}", "--queue", "0"], "--queue"),
        (["{model}", "--max_mb", "-1"], "--max_mb"),
        (["{model}", "--hots", "0.0.0.0"], "--host"),
        (["{model}", "--host", "no.such.host.invalid"], "--host"),
    ],
)
def test_arguments_that_cannot_work_are_refused(
    micro_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")
    filled = [argument.format(tmp=tmp_path, model=micro_whisper) for argument in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert named in error
    assert error.count("\n") == 1


def test_other_addresses_than_loopback_get_a_token(monkeypatch: pytest.MonkeyPatch):
    assert parse_arguments(["model"]).token is None
    assert parse_arguments(["model", "--host", "::1"]).token is None
    first, second = (parse_arguments(["model", "--host", "0.0.0.0"]).token for _ in range(2))
    assert first
    assert second
    assert first != second
    monkeypatch.setenv("WHISPER_FT_TOKEN", "mine")
    assert parse_arguments(["model", "--host", "0.0.0.0"]).token == "mine"
    assert parse_arguments(["model"]).token == "mine", "whoever sets the variable wants a token"


SERVED = """
import sys
from whisper_ft.cli.serve import parse_arguments, refuse_missing, with_hub_adapters
from whisper_ft.web.loaded_models import languages_of
from whisper_ft.web.models_of_run import ServedModels
settings = with_hub_adapters(parse_arguments(sys.argv[1:]))
refuse_missing(settings)
for choice in ServedModels(settings.served, settings.compare, settings.hub_adapters).choices():
    print(choice.id, choice.name, choice.kind, choice.place, "be" in str(languages_of(choice, None)["languages"]))
"""


@pytest.mark.matrix
def test_an_adapter_on_the_hub_is_served_on_its_base(micro_whisper: Path, tmp_path: Path):
    cache = hub_cache(
        tmp_path / "cache", {"lora": own_adapter(micro_whisper, tmp_path / "adapter"), "whole": micro_whisper}
    )
    offline = environment(1) | {"HF_HUB_CACHE": str(cache)}
    folder = cache / "models--me--lora/snapshots/abc"
    expected = {"lora": f"lora adapter {folder} True", "whole": "whole whole me/whole True"}
    for first, second in (("lora", "whole"), ("whole", "lora")):
        program = [sys.executable, "-c", SERVED, f"me/{first}", "--compare", f"me/{second}"]
        found = subprocess.run(program, cwd=ROOT, env=offline, capture_output=True, text=True)
        assert found.stdout.splitlines() == [f"model {expected[first]}", f"compare {expected[second]}"], found.stderr
