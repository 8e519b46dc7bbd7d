"""Contender: transcription as in evaluate.py, without loading the model and without scoring."""

import json
import time
from itertools import islice
from pathlib import Path

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


def main() -> None:
    """Transcribe the set, and print the result."""
    task = from_argument(TranscriptionTask)
    quiet_libraries()
    keep_freed_memory()
    start_processes("cpu")
    with Watch() as watch:
        model, processor = load_whisper(task.model)
        model.eval()
        encode = LabelEncoder.of(model, processor.tokenizer, task.language, "transcribe")
        transcriber = Transcriber(model, processor.tokenizer, encode, DecodingConfig(batch_size=task.batch), "fp32")
        source = open_source(SourceConfig(path=task.data, language=task.language))
        log_mel, total = LogMel(processor.feature_extractor), task.utterances
        warm_up = list(islice(audio_windows(source, log_mel, 0, 1), task.batch))
        transcribe(transcriber, warm_up, task.batch, len(warm_up), Collectives())
        log = ResumeLog(Path(task.texts).parent, 0, ResumeLog.open(Path(task.texts).parent, {}))
        utterances = audio_windows(source, log_mel, 0, 1, total)
        begin = time.perf_counter()
        predictions = transcribe(transcriber, utterances, task.batch, total, Collectives(), resume_log=log)
        seconds = time.perf_counter() - begin
        ResumeLog.close(Path(task.texts).parent)
    texts = [prediction.hyp for prediction in predictions]
    Path(task.texts).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    tokens = sum(prediction.hyp_tokens for prediction in predictions)
    answer(
        {
            "utterances_per_second": round(total / seconds, 2),
            "tokens_per_utterance": round(tokens / total, 2),
            **watch.result(),
        }
    )


if __name__ == "__main__":
    main()
