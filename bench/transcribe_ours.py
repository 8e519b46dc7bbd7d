"""Contender: what evaluate.py does between loading the model and scoring."""

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from bench.tasks import TranscriptionTask, answer, from_argument
from bench.watch import Watch
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.decoding.long_form import audio_windows
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import load_whisper, quiet_libraries
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.processes import start_processes

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Seconds spent in something that is called again and again."""

    def __init__(self) -> None:
        self.seconds = self._began = 0.0

    def begin(self) -> None:
        """It is called."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """It returns."""
        self.seconds += time.perf_counter() - self._began

    def around(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, with its time counted."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            self.begin()
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return timed


def main() -> None:
    """Transcribe the set, and report."""
    task = from_argument(TranscriptionTask)
    quiet_libraries()
    keep_freed_memory()
    start_processes("cpu")
    with Watch() as watch:
        model, processor = load_whisper(task.model)
        model.eval()
        encode = LabelEncoder.of(model, processor.tokenizer, task.language, "transcribe")
        transcriber = Transcriber(model, processor.tokenizer, encode, DecodingConfig(batch_size=task.batch), "fp32")
        source, log_mel = (
            open_source(SourceConfig(path=task.data, language=task.language)),
            LogMel(processor.feature_extractor),
        )
        total = task.utterances
        warm_up = list(islice(audio_windows(source, log_mel, 0, 1), task.batch))
        transcribe(transcriber, warm_up, task.batch, len(warm_up), Collectives())  # unmeasured
        encoding, writing = Stopwatch(), Stopwatch()
        model.model.encoder.register_forward_pre_hook(lambda *_: encoding.begin())
        model.model.encoder.register_forward_hook(lambda *_: encoding.end())
        transcriber.write = writing.around(transcriber.write)  # type: ignore[method-assign]
        parts = ResumeLog(Path(task.texts).parent, 0, ResumeLog.open(Path(task.texts).parent, {}))
        utterances = audio_windows(source, log_mel, 0, 1, total)
        begin = time.perf_counter()
        predictions = transcribe(transcriber, utterances, task.batch, total, Collectives(), parts=parts)
        seconds = time.perf_counter() - begin
        ResumeLog.close(Path(task.texts).parent)
    texts = [prediction.hyp for prediction in predictions]
    Path(task.texts).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    tokens = sum(prediction.hyp_tokens for prediction in predictions)
    answer(
        {
            "utterances_per_second": round(total / seconds, 2),
            "tokens_per_utterance": round(tokens / total, 2),
            "runaway_share": round(sum(prediction.hit_token_limit for prediction in predictions) / total, 4),
            "encoder_share": round(encoding.seconds / seconds, 3),
            "decoder_share": round((writing.seconds - encoding.seconds) / seconds, 3),
            "rest_share": round(1 - writing.seconds / seconds, 3),  # waiting for audio that is not ready, and texts
            **watch.result(),
        }
    )


if __name__ == "__main__":
    main()
