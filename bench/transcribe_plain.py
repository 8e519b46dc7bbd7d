"""Contender: the loop everyone writes. Decode, the extractor's log-mel, `generate` in the order of the set."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import soundfile
import soxr
import torch
import transformers
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from bench.tasks import TranscriptionTask, answer, from_argument
from bench.watch import Watch


def transcribed(rows: Any, model: Any, processor: Any, task: TranscriptionTask) -> Iterator[list[str]]:
    """The texts of one batch after the other."""
    extractor = processor.feature_extractor
    for batch in rows.iter(batch_size=task.batch):
        features = []
        for audio in batch["audio"]:
            waveform, rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")
            if rate != extractor.sampling_rate:
                waveform = soxr.resample(waveform, rate, extractor.sampling_rate)
            # One by one: on a CPU the extractor takes twice as long for a list.
            features.append(extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="pt"))
        inputs = torch.cat([feature.input_features for feature in features])  # [B, M, T]
        generated = model.generate(
            inputs,
            attention_mask=torch.ones(inputs.shape[0], inputs.shape[2]),
            language=task.language,
            task="transcribe",
        )
        yield [text.strip() for text in processor.batch_decode(generated, skip_special_tokens=True)]


def main() -> None:
    """Transcribe the set, and report."""
    task = from_argument(TranscriptionTask)
    transformers.logging.set_verbosity_error()
    with Watch() as watch:
        processor = WhisperProcessor.from_pretrained(task.model)
        model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32).eval()
        files = sorted(str(path) for path in Path(task.data).glob("*.parquet"))
        rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        rows = rows.cast_column("audio", datasets.Audio(decode=False)).take(task.utterances)
        next(transcribed(rows, model, processor, task))  # unmeasured
        begin = time.perf_counter()
        texts = [text for batch in transcribed(rows, model, processor, task) for text in batch]
        seconds = time.perf_counter() - begin
    Path(task.texts).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    answer({"utterances_per_second": round(len(texts) / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
