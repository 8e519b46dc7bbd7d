"""Export of a model: it is loaded, written by the writer of the target, checked in the engines, and recorded."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from whisper_ft.cli.export.check_input import CheckInput, read_check_input
from whisper_ft.cli.export.export_arguments import ExportArguments
from whisper_ft.cli.export.export_card import HEADER, card, table_rows, usage
from whisper_ft.cli.export.export_check import EngineReport, ExportCheck
from whisper_ft.cli.export.export_folder import export_folder, keep_failed
from whisper_ft.cli.export.export_record import write_record
from whisper_ft.cli.export.own_decoder import OwnDecoder
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.models.adapters.merge import load_merged
from whisper_ft.models.export.hf import config_files
from whisper_ft.models.whisper import LoadedWhisper, quiet_libraries, weights_sha256
from whisper_ft.reports.safe_console import print_table
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import CheckError
from whisper_ft.runtime.printable import counted, say
from whisper_ft.scoring.normalizer import NormalizerFactory

OTHER_FILES_BYTES = 8_000_000  # of an export besides the weights: vocabulary, tokenizer, card
SIGNS = '"#()*+/:;<=>@[]^_{|}~'  # some of the signs that other engines never write by default, as OpenAI's models


def export(arguments: ExportArguments, get_normalizer: NormalizerFactory) -> None:
    """Export a model and check it. The folder gets its name only once everything in it is complete.

    Raises CheckError if the check fails in an engine; the export is then left under another name. Raises UsageError for
    a model that the engines cannot take, and DiskError for a full disk; then nothing is left.
    """
    quiet_libraries()
    target, quantization = arguments.target, arguments.quantization
    with memory_errors("while the model was loaded"):
        loaded = load_merged(arguments.model, arguments.base, say)
    loaded.model.eval()
    writer = import_module(f"whisper_ft.models.export.{target.writer}")
    writer.refuse(loaded)
    given = read_check_input(arguments, loaded)
    weights = sum(parameter.numel() for parameter in loaded.model.parameters())
    facts: dict[str, Any] = {
        "target": target.name,
        "quantization": quantization.name,
        "model": arguments.name,
        "weights": weights,
        "weights_sha256": weights_sha256(loaded.model),
    }
    with export_folder(arguments.out, round(weights * quantization.bytes_per_weight) + OTHER_FILES_BYTES) as aside:
        writer.write(loaded, aside, quantization.name)
        for name, content in config_files(*loaded).items():
            if not (aside / name).exists():
                (aside / name).write_bytes(content)
        facts |= _sizes(aside, weights)
        say(f"{facts['model']} is written as {target.what}, {quantization.name}: {facts['bytes'] / 1e6:.1f} MB")
        check, reports = ({}, []) if given is None else _check(arguments, loaded, given, aside, get_normalizer)
        problems = [f"{report.engine.name}: {problem}" for report in reports for problem in report.problems]
        program = _program(arguments, loaded, given)
        facts |= {"status": _status(reports), "check": check}
        (aside / "README.md").write_text(card(facts, target.what, program, problems), encoding="utf-8")
        write_record(aside, facts)
        if problems:
            raise CheckError(f"{'; '.join(problems)}. The export is left in {keep_failed(aside, arguments.out)}")
    say(f"it is in {arguments.out}; use it:", "", *program.splitlines())


def _status(reports: Sequence[EngineReport]) -> str:
    """Return `failed` if any engine failed, `passed` if one has passed, else `unchecked`."""
    found = {report.status for report in reports}
    return next((status for status in ("failed", "passed") if status in found), "unchecked")


def _sizes(folder: Path, weights: int) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"bytes": size, "size_ratio": size / (4 * weights)}  # to the weights in float32


def _check(
    arguments: ExportArguments,
    loaded: LoadedWhisper,
    given: CheckInput,
    folder: Path,
    get_normalizer: NormalizerFactory,
) -> tuple[dict[str, Any], Sequence[EngineReport]]:
    """Check an export in each engine of its target. Returns the check for export.json, and the reports."""
    engines, encode = arguments.target.engines, given.data.encode
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check: ExportCheck | None = None
    if any(engine.is_installed for engine in engines):
        say(f"transcribing {counted(len(given.clips), 'clip')} with the model itself")
        with memory_errors("while the model transcribed"):
            own = OwnDecoder(loaded.model.to(device), loaded.processor.tokenizer)
            normalize = get_normalizer(given.data.normalizer, language=encode.language)
            check = ExportCheck(own, given.clips, normalize, encode.is_multilingual, device)
    reports = []
    for engine in engines:
        if check is None or not engine.is_installed:
            report = EngineReport(engine, unchecked=f"{engine.name} is not installed")
        else:
            say(f"transcribing them in {engine.name}")
            report = check.run(engine, folder, arguments.quantization)
        if report.unchecked:
            say(f"unchecked in {engine.name}: {report.unchecked}; {engine.install}")
        reports.append(report)
    if check is None:
        return {"engines": [report.summary(0, 0) for report in reports]}, reports
    facts = {"data": given.data.name, "clips": len(given.clips), "words": given.words, "device": device}
    facts |= {"audio_seconds": check.audio_seconds, "threads": torch.get_num_threads()}
    facts["model"] = check.rates.summary() | {"times_real_time": check.audio_seconds / check.seconds}
    facts["engines"] = [report.summary(check.audio_seconds, check.seconds) for report in reports]
    print_table(HEADER, table_rows(facts))
    return facts, reports


def _program(arguments: ExportArguments, loaded: LoadedWhisper, given: CheckInput | None) -> str:
    """Return the program that uses the export, for its card and for the screen."""
    generation, tokenizer = loaded.model.generation_config, loaded.processor.tokenizer
    language = None
    if generation.is_multilingual:
        language = given.data.encode.language if given else arguments.language
        language = whisper_language(language or getattr(generation, "language", None) or "en")
    signs = (tokenizer.encode(sign, add_special_tokens=False) for sign in SIGNS)
    known = {tokens[0] for tokens in signs if len(tokens) == 1}
    has_released = not known <= set(generation.suppress_tokens or ())
    return usage(arguments.target, arguments.out, language, has_released=has_released)
