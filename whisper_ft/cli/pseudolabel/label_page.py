"""Page about the labels of a pool: the speech that each threshold keeps, with examples to listen to."""

import io
from collections.abc import Iterator, Mapping, Sequence
from math import isinf
from pathlib import Path

import soundfile

from whisper_ft.cli.pseudolabel.audio_pool import AudioPool, PieceReader
from whisper_ft.cli.pseudolabel.keep_curve import CurvePoint, FigureRange, KeepCurve, keep_curve
from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.cli.pseudolabel.rejection import HELD_OUT_AUDIO, HELD_OUT_TEXT, LIMITS, MEANING
from whisper_ft.config.pseudolabel import KeepLimits
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.reports.evaluation.audio_clips import AudioClips
from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.html.svg import Chart, Column, column_chart
from whisper_ft.reports.text import duration, percent, spelled_out
from whisper_ft.runtime.atomic import write_text
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.edit_distance import ErrorCount, count_errors, total
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.scores import CHARACTERS

PAGE = "pseudolabel.html"
TITLES = {
    "min_logprob": "Mean log-probability",
    "max_disagreement": "Disagreement of two transcripts",
    "max_compression": "Compression of the text",
    "max_no_speech": "Probability of no speech",
    "min_pace": "Letters a second, at least",
    "max_pace": "Letters a second, at most",
}


class LabelPage:
    """Page of a labelling.

    Parameters
        windows: all windows of the pool
        reasons: reason codes of the rejected windows by id
        normalize: normaliser of references and texts, for the error rates
    """

    def __init__(
        self, windows: Sequence[PoolWindow], reasons: Mapping[str, str], limits: KeepLimits, normalize: Normalizer
    ) -> None:
        self._windows, self._reasons, self._unit = windows, reasons, normalize.unit
        self._errors = {
            window.id: errors_of(window, normalize) for window in windows if window.reference and window.text
        }
        open_to_all = [window for window in windows if reasons.get(window.id) not in (HELD_OUT_AUDIO, HELD_OUT_TEXT)]
        curves = (keep_curve(limit, open_to_all, limits, self._errors) for limit in LIMITS)
        by_setting = {curve.limit.setting: curve for curve in curves if curve is not None}
        self.curves = [by_setting[setting] for setting in TITLES if setting in by_setting]

    def samples(self) -> list[PoolWindow]:
        """Return the windows that the page plays, each once, in the order of the pool."""
        chosen = {window.id for curve in self.curves for one in curve.ranges for window in one.samples}
        return [window for window in self._windows if window.id in chosen]

    def write(self, folder: Path, title: str, sounds: Mapping[str, bytes]) -> Path:
        """Write the page, and return its path. `sounds` are encoded clips by id. Raises DiskError."""
        clips = AudioClips(sounds.get)
        page = render_page(
            "pseudolabel",
            title,
            visible=spelled_out,
            policy="media-src data:",
            figures=self._figures(),
            reasons=self._reason_rows(),
            curves=[self._section(curve) for curve in self.curves],
            rate_name="CER" if self._unit == CHARACTERS else "WER",
            has_rates=bool(self._errors),
            address=clips.address,
        )
        write_text(folder / PAGE, page)
        return folder / PAGE

    def _figures(self) -> dict[str, str]:
        kept = [window for window in self._windows if window.id not in self._reasons]
        seconds = sum(window.seconds for window in self._windows)
        kept_seconds = sum(window.seconds for window in kept)
        figures = {
            "windows": f"{len(self._windows):,}",
            "kept": f"{len(kept):,}",
            "audio": duration(seconds),
            "kept audio": duration(kept_seconds),
            "kept share": percent(kept_seconds / seconds, 1) if seconds else "n/a",
        }
        if self._errors:
            name = "CER" if self._unit == CHARACTERS else "WER"
            figures[f"{name} of the kept"] = percent(
                total(self._errors[window.id] for window in kept if window.id in self._errors).rate
            )
            figures[f"{name} of all"] = percent(total(self._errors.values()).rate)
        return figures

    def _reason_rows(self) -> list[tuple[str, str, int, str]]:
        """Return code, meaning, number of windows and their length, for each reason, the most frequent first."""
        rows = []
        for code in dict.fromkeys(self._reasons.values()):
            inside = [window for window in self._windows if self._reasons.get(window.id) == code]
            seconds = sum(window.seconds for window in inside)
            rows.append((code, MEANING.get(code, "the audio cannot be read"), len(inside), duration(seconds)))
        return sorted(rows, key=lambda row: (-row[2], row[0]))

    def _section(self, curve: KeepCurve) -> dict[str, object]:
        setting = curve.limit.setting
        return {
            "setting": setting,
            "title": TITLES[setting],
            "chart": _chart(curve),
            "of": f"{counted(curve.windows, 'window')} ({duration(curve.seconds)})",
            "points": [self._point(curve, point) for point in curve.points],
            "ranges": [
                (_range_name(one, is_least=curve.limit.is_least), counted(one.windows, "window"), one.samples)
                for one in curve.ranges
            ],
        }

    def _point(self, curve: KeepCurve, point: CurvePoint) -> dict[str, object]:
        share = point.seconds / curve.seconds if curve.seconds else 0.0
        return {
            "name": f"{point.threshold:g}",
            "is_current": point.is_current,
            "cells": [f"{point.windows:,}", duration(point.seconds), percent(share, 0)]
            + ([percent(point.errors.rate)] if self._errors else []),
        }


def errors_of(window: PoolWindow, normalize: Normalizer) -> ErrorCount:
    """Count the errors of a window's text against its reference, in the unit of the normaliser."""
    texts = (normalize(text) for text in (window.reference or "", window.text))
    reference, text = (list(one.replace(" ", "")) if normalize.unit == CHARACTERS else one.split() for one in texts)
    return count_errors(reference, text)


def _chart(curve: KeepCurve) -> Chart:
    columns = [
        Column(
            "hit" if point.is_current else "rate",
            share := point.seconds / (curve.seconds or 1.0),
            percent(share, 0),
            f"{point.threshold:g}",
            tooltip=f"{point.threshold:g}: {duration(point.seconds)}",
        )
        for point in curve.points
    ]
    sign = "least" if curve.limit.is_least else "greatest"
    return column_chart(f"Speech kept by --{curve.limit.setting}", f"{sign} value that is kept", columns, 1.0)


def _range_name(one: FigureRange, *, is_least: bool) -> str:
    """Return a range in words. The threshold of a least value is in the range above it, any other in that below."""
    if isinf(one.low):
        return f"{'below' if is_least else 'up to'} {one.high:g}"
    if isinf(one.high):
        return f"{one.low:g} and more" if is_least else f"above {one.low:g}"
    return f"{one.low:g} to {one.high:g}"


def sounds_of(pool: AudioPool, windows: Sequence[PoolWindow], window: tuple[int, int]) -> dict[str, bytes]:
    """Return the sounds of some windows as MP3, by id. `window` has the samples of a window and their rate in Hz."""
    return {one.id: _mp3(waveform, window[1]) for one, waveform in _waveforms(pool, windows, window)}


def _waveforms(
    pool: AudioPool, windows: Sequence[PoolWindow], window: tuple[int, int]
) -> Iterator[tuple[PoolWindow, Waveform]]:
    """Yield the windows whose audio can be read, with their samples."""
    wanted = {(one.part, one.item, one.number): one for one in windows}
    for part in sorted({part for part, _, _ in wanted}):
        items = pool.items(part)
        for item in sorted({item for of_part, item, _ in wanted if of_part == part}):
            last = max(number for *place, number in wanted if place == [part, item])
            for piece in PieceReader(items[item]).pieces(*window):
                if (part, item, piece.number) in wanted:
                    yield wanted[part, item, piece.number], piece.waveform
                if piece.number == last:
                    break


def _mp3(waveform: Waveform, rate: int) -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform.clip(-1.0, 1.0), rate, format="MP3", subtype="MPEG_LAYER_III")
    return encoded.getvalue()
