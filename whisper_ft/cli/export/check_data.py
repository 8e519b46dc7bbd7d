"""Data of a check: the held-out set of a run, or a data set that the user names."""

from dataclasses import dataclass
from pathlib import Path

from whisper_ft.cli.export.export_arguments import CheckedModel
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.run_configuration import saved_configuration
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_held_out, open_source, pin
from whisper_ft.data.used_settings import languages_found
from whisper_ft.decoding.evaluator import encoder_of_set
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.redaction import redacted
from whisper_ft.training.preflight import refuse_missing

NORMALIZER = "golden"  # of a check that belongs to no run; it is the default of a run, too


@dataclass(frozen=True)
class CheckData:
    """Opened data set of a check, with everything that its transcription and scoring depend on."""

    name: str
    """The data set in words, without paths of this machine."""
    rows: LabelledSource
    encode: LabelEncoder
    normalizer: str
    """Name of the normaliser."""


def open_check_data(arguments: CheckedModel, loaded: LoadedWhisper) -> CheckData | None:
    """Open the data of a check. None if the user wants no check, or names no data for a model that belongs to no run.

    Raises UsageError or DataError if the data cannot be opened, or if its language is not known.
    """
    if arguments.clips == 0:
        return None
    if arguments.data is not None:
        rows = open_source(pin(SourceConfig(path=arguments.data, language=arguments.language)))
        return CheckData(Path(redacted(arguments.data)).name, rows, _encoder(rows, loaded), NORMALIZER)
    config = None if arguments.run is None else saved_configuration(arguments.run)
    if config is None or config.held_out is None:
        return None
    if arguments.language is not None:
        raise UsageError(
            f"--language {arguments.language}: has no effect, because the held-out set of the run has its own; leave "
            "it out, or name a data set: --check DATA"
        )
    where = config.held_out
    refuse_missing("eval.path", where.path)
    rows = open_held_out(config, pin(where))
    return CheckData("held-out set of the run", rows, _encoder(rows, loaded), config.eval.normalizer)


def _encoder(rows: LabelledSource, loaded: LoadedWhisper) -> LabelEncoder:
    found, tokenizer = languages_found([rows]), loaded.processor.tokenizer
    try:
        return encoder_of_set(rows.where, found, loaded.model, tokenizer, detect_language=False, leading_space="auto")[
            0
        ]
    except UsageError as error:
        raise UsageError(str(error).replace("--data.", "--")) from error
