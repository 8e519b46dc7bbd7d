"""Contenders for evaluate.py, in two usual ways: `python -m bench.transcribe_others TASK plain|pipeline`.

`plain` is the usual loop: decode, the extractor's log-mel, `generate`, in the order of the set. `pipeline` is
`pipeline("automatic-speech-recognition")` as in the model cards. Since transformers 5 its default is five beams, so
some of its texts differ from the others.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import soxr
import torch
import transformers
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from bench.tasks import TranscriptionTask, answer, from_argument
from bench.watch import Watch

Texts = Callable[[int], list[str]]  # number of utterances -> their transcripts


def rows_of(task: TranscriptionTask, utterances: int) -> Any:
    """Read the first rows of the set, with the audio as encoded bytes."""
    files = sorted(str(path) for path in Path(task.data).glob("*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    return rows.cast_column("audio", datasets.Audio(decode=False)).take(utterances)


def waveform_of(encoded: bytes, sample_rate: int) -> Any:
    """Decode audio to samples at a sample rate."""
    waveform, rate = soundfile.read(io.BytesIO(encoded), dtype="float32")
    return waveform if rate == sample_rate else soxr.resample(waveform, rate, sample_rate)


def plain(task: TranscriptionTask) -> Texts:
    """Make the function that transcribes by `generate`, batch after batch."""
    processor = WhisperProcessor.from_pretrained(task.model)
    model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32).eval()
    extractor = processor.feature_extractor
    log_mel = partial(extractor, sampling_rate=extractor.sampling_rate, return_tensors="pt")

    def texts(utterances: int) -> list[str]:
        written: list[str] = []
        for batch in rows_of(task, utterances).iter(batch_size=task.batch):
            # One clip at a time: on a CPU the extractor takes twice as long for a list.
            clips = [waveform_of(audio["bytes"], extractor.sampling_rate) for audio in batch["audio"]]
            features = torch.cat([log_mel(clip).input_features for clip in clips])  # [B, M, T]
            mask = torch.ones(features.shape[0], features.shape[2])
            tokens = model.generate(features, attention_mask=mask, language=task.language, task="transcribe")
            written += processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in written]

    return texts


def pipeline(task: TranscriptionTask) -> Texts:
    """Make the function that transcribes by transformers' pipeline with its defaults."""
    recognise = transformers.pipeline("automatic-speech-recognition", model=task.model, device="cpu")
    rate = recognise.feature_extractor.sampling_rate
    options = {"language": task.language, "task": "transcribe"}

    def clips(utterances: int) -> Iterator[dict[str, np.ndarray | int]]:
        for row in rows_of(task, utterances):
            # Resampled here: the pipeline would ask for torchaudio.
            yield {"raw": waveform_of(row["audio"]["bytes"], rate), "sampling_rate": rate}

    def texts(utterances: int) -> list[str]:
        rows = recognise(clips(utterances), batch_size=task.batch, generate_kwargs=options)
        return [row["text"].strip() for row in rows]

    return texts


def main() -> None:
    """Transcribe the set, and print the result."""
    task = from_argument(TranscriptionTask)
    transformers.logging.set_verbosity_error()
    with Watch() as watch:
        texts_of = {"plain": plain, "pipeline": pipeline}[sys.argv[2]](task)
        texts_of(task.batch)  # warm-up
        begin = time.perf_counter()
        texts = texts_of(task.utterances)
        seconds = time.perf_counter() - begin
    Path(task.texts).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    answer({"utterances_per_second": round(len(texts) / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
