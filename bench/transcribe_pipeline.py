"""Contender: `pipeline("automatic-speech-recognition")` as its recipe has it, with all that it does by default.

Since transformers 5 that is five beams: some of its texts are not those of the others.
"""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import soundfile
import soxr
import transformers

from bench.tasks import TranscriptionTask, answer, from_argument
from bench.watch import Watch


def main() -> None:
    """Transcribe the set, and report."""
    task = from_argument(TranscriptionTask)
    transformers.logging.set_verbosity_error()
    with Watch() as watch:
        recognise = transformers.pipeline("automatic-speech-recognition", model=task.model, device="cpu")
        wanted = recognise.feature_extractor.sampling_rate
        files = sorted(str(path) for path in Path(task.data).glob("*.parquet"))
        rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        rows = rows.cast_column("audio", datasets.Audio(decode=False))

        def clips(most: int) -> Iterator[dict[str, Any]]:
            for row in rows.take(most):
                waveform, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
                if rate != wanted:  # the pipeline would ask for torchaudio
                    waveform = soxr.resample(waveform, rate, wanted)
                yield {"raw": waveform, "sampling_rate": wanted}

        given = {"language": task.language, "task": "transcribe"}

        def texts(most: int) -> list[str]:
            written = recognise(clips(most), batch_size=task.batch, generate_kwargs=given)
            return [row["text"].strip() for row in written]

        texts(task.batch)  # unmeasured
        begin = time.perf_counter()
        found = texts(task.utterances)
        seconds = time.perf_counter() - begin
    Path(task.texts).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    answer({"utterances_per_second": round(len(found) / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
