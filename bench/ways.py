"""What each way of computing is worth by itself: what train.py and evaluate.py do, and the same without it, in turn.

In one process, because two on one machine differ by more than most of this. The batches are in memory.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Any

import torch

from bench.limit import held, stepping
from bench.prepare import LANGUAGE
from bench.tasks import WaysTask, answer, from_argument
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.decoding.long_form import AudioWindow, audio_windows
from whisper_ft.decoding.transcribe import AHEAD
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import load_whisper, quiet_libraries
from whisper_ft.optim.loss import token_loss_sum
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.processes import start_processes

Ways = dict[str, Callable[[int], object]]
"""What is done at the n-th time: first as it is done in earnest, then in other ways."""


class AllLogits(torch.nn.Module):
    """The loss as it is usually computed: the logits of every label position, padding too, are there at once."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: torch.Tensor, decoder_input_ids: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy summed over the labels that are predicted."""
        given = {"input_features": features, "decoder_input_ids": decoder_input_ids, "use_cache": False}
        return token_loss_sum(self.model(**given).logits, labels)


class AllEndedError(Exception):
    """All rows of a batch have written their end."""


def ratios(ways: Ways, times: int, unmeasured: int = 2) -> dict[str, float]:
    """How many times as long each other way takes: the median over so many times of all in turn.

    Each turn begins with another one, and all garbage is collected before each: else what one leaves behind is paid
    for by the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for n in range(unmeasured + times):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            begin = time.perf_counter()
            ways[name](n)
            seconds[name].append(time.perf_counter() - begin)
    kept, *others = (seconds[name][unmeasured:] for name in names)
    return {
        name: round(median(other / own for other, own in zip(taken, kept, strict=True)), 3)
        for name, taken in zip(names[1:], others, strict=True)
    }


def training(task: WaysTask) -> Ways:
    """An update."""
    batches = held(task)

    def way(**settings: Any) -> Callable[[int], object]:
        step = stepping(task, **settings)
        return lambda n: step(batches[n % len(batches)])

    def not_deterministic() -> Callable[[int], object]:
        step = way()

        def loosely(n: int) -> None:
            torch.use_deterministic_algorithms(False)
            step(n)
            torch.use_deterministic_algorithms(True)

        return loosely

    return {
        "kept": way(),
        "the same again": way(),  # what of the others is noise
        "optimizer not fused": way(fused=False),
        "attention not fused": way(attention="eager"),
        "logits of all positions": way(loss=AllLogits),
        "operations in any order": not_deterministic(),
        "torch.compile": way(compiled=True),
    }


class Transcription:
    """Ways to transcribe some windows."""

    def __init__(self, task: WaysTask) -> None:
        self._size = task.batch
        self._model, processor = load_whisper(task.taught)
        self._model.eval()
        tokenizer = processor.tokenizer
        self._encode = LabelEncoder.of(self._model, tokenizer, LANGUAGE, "transcribe")
        self._transcriber = Transcriber(
            self._model, tokenizer, self._encode, DecodingConfig(batch_size=task.batch), "fp32"
        )
        source = open_source(SourceConfig(path=task.test, language=LANGUAGE))
        self._windows = list(islice(audio_windows(source, LogMel(processor.feature_extractor), 0, 1), task.utterances))
        self._prompt, self._end = self._encode.prompt(), tokenizer.eos_token_id

    def ways(self) -> Ways:
        """All of the windows at each time."""

        def of_batches(write: Callable[[list[AudioWindow]], object], by_length: bool = True) -> Callable[[int], object]:
            return lambda n: [write(batch) for batch in self._batches(by_length)]

        def without_gradients(batch: list[AudioWindow]) -> object:
            with torch.no_grad():
                return Transcriber.write.__wrapped__(self._transcriber, self._features(batch), self._prompt)  # type: ignore[attr-defined]

        def write(batch: list[AudioWindow]) -> object:
            return self._transcriber.write(self._features(batch), self._prompt)

        return {
            "kept": of_batches(write),
            "the same again": of_batches(write),
            "no_grad": of_batches(without_gradients),
            "batches in the order of the set": of_batches(write, by_length=False),
            "rows stay until the last has ended": of_batches(self._all_stay),
            "transformers' generate": of_batches(self._generate),
        }

    def _batches(self, by_length: bool) -> Iterator[list[AudioWindow]]:
        """Of `by_length`, as evaluate.py does it: the windows of some batches at a time."""
        for at in range(0, len(self._windows), AHEAD * self._size):
            some = self._windows[at : at + AHEAD * self._size]
            some = sorted(some, key=lambda window: -window.seconds) if by_length else some
            yield from (some[begin : begin + self._size] for begin in range(0, len(some), self._size))

    def _features(self, batch: Sequence[AudioWindow]) -> list[torch.Tensor]:
        return [window.features for window in batch]

    def _whole(self, batch: Sequence[AudioWindow]) -> torch.Tensor:  # [B, M, T]
        return pad_windows(self._features(batch), 2 * self._model.config.max_source_positions)

    @torch.inference_mode()
    def _generate(self, batch: list[AudioWindow]) -> object:
        features = self._whole(batch)
        heard_frames = torch.ones(features.shape[0], features.shape[2])
        return self._model.generate(features, attention_mask=heard_frames, language=LANGUAGE, task="transcribe")

    @torch.inference_mode()
    def _all_stay(self, batch: list[AudioWindow]) -> None:
        greedy, end = self._transcriber._greedy, self._end  # the very decoder, with a rule of our own

        def go_on(written: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
            ended = torch.tensor([end in row for row in written])
            if ended.all():
                raise AllEndedError
            logits[ended] = float("-inf")
            logits[ended, end] = 0.0
            return logits

        states = greedy.encode(self._whole(batch))
        room = self._model.config.max_target_positions - len(self._prompt)
        try:
            greedy(states, self._prompt, room, -1, go_on)
        except AllEndedError:
            return


def log_mels(task: WaysTask) -> Ways:
    """The log-mel of every clip."""
    processor = load_whisper(task.taught)[1]
    extractor, log_mel = processor.feature_extractor, LogMel(processor.feature_extractor)
    source = open_source(SourceConfig(path=task.test, language=LANGUAGE))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)][: task.utterances]
    clips = [decode(row.audio, log_mel.sample_rate, log_mel.window_seconds) for row in rows]
    return {
        "kept": lambda n: [log_mel(clip) for clip in clips],
        "transformers' extractor": lambda n: [
            extractor(clip, sampling_rate=log_mel.sample_rate, return_tensors="pt") for clip in clips
        ],
    }


def main() -> None:
    """All of them, and report."""
    task = from_argument(WaysTask)
    quiet_libraries()
    keep_freed_memory()
    start_processes("cpu")
    answer(
        {
            "a step of the training": ratios(training(task), task.steps - task.unmeasured_steps),
            "a transcription": ratios(Transcription(task).ways(), task.times),
            "log-mels": ratios(log_mels(task), task.times),
        }
    )


if __name__ == "__main__":
    main()
