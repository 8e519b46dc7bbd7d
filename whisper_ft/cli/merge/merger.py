"""Merge of an adapter: onto each target, scored beside the adapter, and the better model written."""

from pathlib import Path
from typing import Any

import torch

from whisper_ft.cli.export.check_input import CheckInput, read_check_input
from whisper_ft.cli.export.export_folder import export_folder, keep_failed
from whisper_ft.cli.export.export_record import write_record
from whisper_ft.cli.export.exporter import OTHER_FILES_BYTES
from whisper_ft.cli.merge.merge_arguments import DEFAULT_RISE, MergeArguments
from whisper_ft.cli.merge.merge_card import HEAD, merge_card, table_rows
from whisper_ft.cli.merge.merge_outcome import MergeOutcome, Transcripts, better
from whisper_ft.models.adapters.adapted_whisper import attach, checked_base, local_adapter
from whisper_ft.models.adapters.adapter_folder import AdapterFolder, read_adapter
from whisper_ft.models.adapters.merge import MergeTarget, merged_model, targets_of
from whisper_ft.models.adapters.quantised_base import load_base
from whisper_ft.models.export.hf import write
from whisper_ft.models.precision import precision_record, recorded_precision
from whisper_ft.models.whisper import LoadedWhisper, quiet_libraries, weights_sha256
from whisper_ft.reports.safe_console import print_table
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import CheckError, UsageError
from whisper_ft.runtime.printable import counted, say
from whisper_ft.scoring.normalizer import Normalizer, NormalizerFactory
from whisper_ft.training.run_folder import public_name

NO_WORDS = "no reference of the check has a word, so there is no error rate"


def merge(arguments: MergeArguments, get_normalizer: NormalizerFactory) -> None:
    """Merge an adapter and check the result. The folder gets its name only once everything in it is complete.

    Raises CheckError if the error rate rises too much; the model is then left under another name. Raises UsageError for
    an adapter that cannot be merged, and DiskError for a full disk; then nothing is left.
    """
    quiet_libraries()
    path = local_adapter(arguments.model)
    if path is None:
        raise UsageError(f"{arguments.model}: is no adapter, neither here nor on the Hub; there is nothing to merge")
    folder = read_adapter(path)
    targets = _targets(folder, arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    adapted = _adapted(folder, arguments.base, device)
    given = read_check_input(arguments, adapted)
    if given is None and len(targets) > 1:
        raise UsageError("--onto better: needs clips to score; name a data set (--check DATA), or choose the target")
    outcomes: list[MergeOutcome] = []
    if given is None:
        arguments.refuse_unused()
        chosen: MergeTarget = targets[0]
        del adapted
        merged = merged_model(folder, chosen, arguments.base, say)
    else:
        normalize = get_normalizer(given.data.normalizer, language=given.data.encode.language)
        say(f"transcribing {counted(len(given.clips), 'clip')} with the adapter")
        before = Transcripts.of(adapted, given, normalize, device)
        del adapted  # frees its memory for the merged models
        merged, outcomes = _compared(folder, targets, arguments, given, normalize, before, device)
        chosen = better(outcomes).onto
    facts: dict[str, Any] = {
        "target": "merge",
        "model": arguments.name,
        "base": public_name(checked_base(folder, arguments.base).name),
        "onto": chosen,
        "weights_sha256": weights_sha256(merged.model),
        "check": _check_facts(given, outcomes),
    }
    _write(arguments, merged, facts, outcomes, precision_of(path))


def precision_of(folder: Path) -> dict[str, bytes]:
    """Return the file that records the precision of the adapter's run, by name; none if nothing records it."""
    recorded = recorded_precision(str(folder))
    return precision_record(recorded) if recorded else {}


def _targets(folder: AdapterFolder, arguments: MergeArguments) -> tuple[MergeTarget, ...]:
    """Return the targets to compare. Raises UsageError for `dequantised` with a base that was not quantised."""
    possible = targets_of(folder)
    if arguments.onto == "better":
        return possible
    if arguments.onto not in possible:
        raise UsageError(f"--onto {arguments.onto}: the base of {folder.path} was not quantised; leave --onto out")
    return (arguments.onto,)


@memory_errors("while the model was loaded")
def _adapted(folder: AdapterFolder, base: str | None, device: torch.device) -> LoadedWhisper:
    """Load the base as it was in the training, computing in float32, with the adapter."""
    loaded = load_base(checked_base(folder, base).name, folder.quantisation, "fp32", device, on_repair=say)
    attach(loaded, folder)
    return loaded


def _compared(
    folder: AdapterFolder,
    targets: tuple[MergeTarget, ...],
    arguments: MergeArguments,
    given: CheckInput,
    normalize: Normalizer,
    before: Transcripts,
    device: torch.device,
) -> tuple[LoadedWhisper, list[MergeOutcome]]:
    """Merge onto each target and transcribe with it. Returns the better model and the outcomes of all."""
    outcomes: list[MergeOutcome] = []
    kept: LoadedWhisper | None = None
    for onto in targets:
        with memory_errors("while the model was loaded"):
            merged = merged_model(folder, onto, arguments.base, lambda line: None)
        say(f"transcribing them when merged onto the {onto} base")
        outcome = MergeOutcome(onto, before, Transcripts.of(merged, given, normalize, device, before.tokens))
        outcomes.append(outcome)
        if better(outcomes) is outcome:
            kept = merged
    assert kept is not None
    return kept, outcomes


def _check_facts(given: CheckInput | None, outcomes: list[MergeOutcome]) -> dict[str, Any]:
    if given is None:
        return {}
    facts: dict[str, Any] = {"data": given.data.name, "clips": len(given.clips), "words": given.words}
    return facts | {"outcomes": [outcome.summary() for outcome in outcomes]}


def _write(
    arguments: MergeArguments,
    merged: LoadedWhisper,
    facts: dict[str, Any],
    outcomes: list[MergeOutcome],
    files: dict[str, bytes],
) -> None:
    """Write the folder. Raises CheckError for an error rate over the limit; the folder then has another name."""
    model = merged.model.cpu()
    rise, most = better(outcomes).rise if outcomes else None, arguments.max_rise
    most = DEFAULT_RISE if most is None else most
    problem = None
    if outcomes:
        print_table(HEAD, table_rows(facts["check"]))
    if outcomes and rise is None:
        facts |= {"reason": NO_WORDS}
        say(f"unchecked: {NO_WORDS}; name other clips: --check DATA")
    if rise is not None and rise > most:
        problem = f"the error rate rises by {rise:.2f} points, above --max_wer_rise {most:g}"
    weights = sum(parameter.nbytes for parameter in model.parameters())
    with export_folder(arguments.out, weights + OTHER_FILES_BYTES) as aside:
        write(merged, aside, "float32")
        for name, content in files.items():
            (aside / name).write_bytes(content)
        (aside / "README.md").write_text(merge_card(facts, problem), encoding="utf-8")
        write_record(aside, facts | {"status": "failed" if problem else "unchecked" if rise is None else "passed"})
        if problem:
            raise CheckError(f"{problem}. The model is left in {keep_failed(aside, arguments.out)}")
    say(f"the merged model is in {arguments.out}")
