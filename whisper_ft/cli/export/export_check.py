"""Check of an export: every engine of its target transcribes the same clips as the model itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from whisper_ft.cli.export.check_clips import CheckClip
from whisper_ft.cli.export.engine_process import EngineFailedError, EngineUnavailableError, run_engine
from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult
from whisper_ft.cli.export.output_rates import OutputRates, rates_of
from whisper_ft.cli.export.own_decoder import OwnDecoder
from whisper_ft.cli.export.parity import Parity, compare, finite, text_of
from whisper_ft.cli.export.targets import Engine, Quantization
from whisper_ft.runtime import atomic
from whisper_ft.scoring.normalizer import Normalizer

LOGITS_CLIPS = 3  # clips whose logits are compared: a clip of 30 tokens takes 6 MB
LANGUAGE_CLIPS = 24  # clips whose language is detected, because that takes another pass of the encoder
SHOWN_DEPARTURES = 5  # departures in export.json
MAX_LOOPS = 0.5  # share of the clips that may loop, in the model or in the engine, with unequal tokens
MORE_LOOPS = 0.02  # share of the clips that may loop in a quantised format and not in the model; at least one may


@dataclass(frozen=True)
class EngineReport:
    """Result of the check in one engine."""

    engine: Engine
    unchecked: str = ""
    """Reason why the engine could not be used; then there are no figures."""
    problems: Sequence[str] = ()
    """Limits that are not kept, or the reason why the engine failed."""
    result: EngineResult | None = field(default=None, repr=False)
    parity: Parity | None = None
    rates: OutputRates | None = None

    @property
    def status(self) -> str:
        """`passed`, `failed` or `unchecked`."""
        return "unchecked" if self.unchecked else "failed" if self.problems else "passed"

    def summary(self, audio_seconds: float, own_seconds: float) -> dict[str, Any]:
        """Return the report as JSON values. The seconds are those of the audio, and of the model's own decoding."""
        facts: dict[str, Any] = {"engine": self.engine.name, "status": self.status}
        if self.unchecked:
            return facts | {"reason": self.unchecked, "install": self.engine.install}
        facts["problems"] = [*self.problems]
        if self.result is None or self.parity is None or self.rates is None:
            return facts
        parity, rates = self.parity, self.rates
        return facts | {
            "version": self.result.version,
            "computed_in": self.result.computed_in,
            "clips": parity.clips,
            "equal": parity.equal,
            "nearly_even": parity.even,
            "departures": [found.summary() for found in parity.departures[:SHOWN_DEPARTURES]],
            "cer_to_model": parity.cer,
            "max_logit_difference": finite(parity.max_logit_difference),
            "languages_detected_equally": parity.languages,
            **rates.summary(),
            "times_real_time": audio_seconds / self.result.seconds,
            "speed_ratio": own_seconds / self.result.seconds,
        }


class ExportCheck:
    """Clips of a check with the output of the model itself, to which the engines are compared.

    Parameters
        own: decoder of the model.
        clips: the clips; at least one.
        normalize: normaliser of the error rates.
        is_multilingual: whether the model has tokens for languages.
        device: `cpu` or `cuda`, for the engines.
    """

    def __init__(
        self, own: OwnDecoder, clips: Sequence[CheckClip], normalize: Normalizer, is_multilingual: bool, device: str
    ) -> None:
        self._own, self._clips, self._normalize = own, clips, normalize
        self._is_multilingual, self._device = is_multilingual, device
        self._rows, self.seconds = own.transcribe([clip.job for clip in clips])
        """Time of the model's own decoding in seconds."""
        self.audio_seconds = sum(clip.job.seconds for clip in clips)
        texts = [own.text(row) for row in self._rows]
        self.rates = rates_of(clips, texts, [len(row) for row in self._rows], own.limit, normalize)
        """Error rates of the model itself."""

    def run(self, engine: Engine, export: Path, quantization: Quantization) -> EngineReport:
        """Transcribe the clips with an engine, and compare its output with that of the model.

        Raises DiskError if the files of the engine's job cannot be written.
        """
        if not engine.is_installed:
            return EngineReport(engine, unchecked=f"{engine.name} is not installed")
        try:
            with TemporaryDirectory(prefix="whisper-ft-") as folder:
                with atomic.disk_errors(Path(folder)):
                    self._job(export, quantization).write(Path(folder))
                result = run_engine(engine, Path(folder))
        except EngineUnavailableError as error:
            return EngineReport(engine, unchecked=f"{engine.name} cannot be used: {error}")
        except EngineFailedError as error:
            return EngineReport(engine, problems=[str(error)])
        return self._compared(engine, result, engine.limits(quantization))

    def _job(self, export: Path, quantization: Quantization) -> EngineJob:
        return EngineJob(
            export=export.resolve(),
            quantization=quantization.name,
            is_multilingual=self._is_multilingual,
            limit=self._own.limit,
            end=self._own.end,
            suppressed=self._own.suppressed,
            timestamps=self._own.timestamps,
            suppressed_at_begin=self._own.suppressed_at_begin,
            device=self._device,
            threads=torch.get_num_threads(),
            logits_clips=min(LOGITS_CLIPS, len(self._clips)),
            language_clips=min(LANGUAGE_CLIPS, len(self._clips)) if self._is_multilingual else 0,
            clips=[clip.job for clip in self._clips],
        )

    def _compared(self, engine: Engine, result: EngineResult, quantization: Quantization) -> EngineReport:
        limit = min(result.limit or self._own.limit, self._own.limit)
        texts = [text_of(row, self._own) for row in result.rows]
        counts = [
            len(row.tokens if row.tokens is not None else self._own.tokens_of(row.text or "")) for row in result.rows
        ]
        rates = rates_of(self._clips, texts, counts, limit, self._normalize)
        loops = rates.loops | self.rates.loops
        parity = compare(self._clips, self._rows, result, self._own, quantization.max_gap, loops)
        problems = parity.problems(quantization, self.rates.cer_without_loops or 0.0)
        if quantization.max_cer is not None:
            departed = loops.intersection(found.clip for found in parity.departures)
            problems += _too_many_loops(len(self.rates.loops), len(rates.loops), len(departed), len(self._clips))
        return EngineReport(engine, problems=problems, result=result, parity=parity, rates=rates)


def _too_many_loops(own: int, theirs: int, departed: int, clips: int) -> list[str]:
    """Return a line if a quantised export loops more than the model, or if most clips loop and cannot be compared.

    `departed` counts the loops that the engine writes otherwise than the model. Equal loops can be compared.
    """
    if departed > MAX_LOOPS * clips:
        return [f"{departed} of {clips} transcripts loop unlike the model's, too many to compare the others"]
    if theirs - own > max(1, MORE_LOOPS * clips):
        return [f"{theirs} of {clips} transcripts loop; of the model itself {own} do"]
    return []
