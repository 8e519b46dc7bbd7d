"""The same utterances from each kind of source: the same weights, with any number of data workers. Real runs."""

import csv
import io
import json
import signal
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Trainer, digest, logged, made_once, metrics
from tests.elsewhere import AUDIO
from whisper_ft.data.formats.file_table import CHUNK_ROWS

SHORT = {"steps": 6, "eval__every": 0, "save__every": 2}


@dataclass(frozen=True)
class Clip:
    name: str  # of a file
    audio: bytes
    text: str


@pytest.fixture(scope="session")
def clips(corpus: Path) -> list[Clip]:
    """All 100 utterances, in the order of the corpus."""
    rows = [row for path in sorted((corpus / "train").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [Clip(row["audio"]["path"], row["audio"]["bytes"], row["sentence"]) for row in rows]


def put(folder: Path, clips: Sequence[Clip]) -> list[str]:
    """Write audio files, and give their names."""
    folder.mkdir(parents=True)
    for clip in clips:
        (folder / clip.name).write_bytes(clip.audio)
    return [clip.name for clip in clips]


def as_parquet(folder: Path, clips: Sequence[Clip]) -> Path:
    folder.mkdir()
    audio = pa.array([{"bytes": clip.audio, "path": clip.name} for clip in clips], AUDIO)
    table = pa.table({"audio": audio, "sentence": [clip.text for clip in clips]})
    pq.write_table(table, folder / "a.parquet", row_group_size=CHUNK_ROWS)
    return folder


def as_manifest(folder: Path, clips: Sequence[Clip]) -> Path:
    put(folder / "wav", clips)
    lines = [json.dumps({"audio_filepath": f"wav/{clip.name}", "text": clip.text}) for clip in clips]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder / "a.jsonl"


def as_audiofolder(folder: Path, clips: Sequence[Clip]) -> Path:
    put(folder, clips)
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "transcription"), *((clip.name, clip.text) for clip in clips)])
    return folder


def as_tar(folder: Path, clips: Sequence[Clip]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, clip in enumerate(clips):
            for suffix, content in ((Path(clip.name).suffix, clip.audio), (".txt", clip.text.encode())):
                info = tarfile.TarInfo(f"{number:05d}{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def as_kaldi(folder: Path, clips: Sequence[Clip]) -> Path:
    put(folder / "wav", clips)
    (folder / "wav.scp").write_text("".join(f"u{i} wav/{clip.name}\n" for i, clip in enumerate(clips)))
    (folder / "text").write_text("".join(f"u{i} {clip.text}\n" for i, clip in enumerate(clips)))
    return folder


def as_saved_dataset(folder: Path, clips: Sequence[Clip]) -> Path:
    audio = [{"bytes": clip.audio, "path": clip.name} for clip in clips]
    made = datasets.Dataset.from_dict({"audio": audio, "sentence": [clip.text for clip in clips]})
    made.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(folder)
    return folder


def as_common_voice(folder: Path, clips: Sequence[Clip]) -> Path:
    put(folder / "be" / "clips", clips)
    lines = ["client_id\tpath\tsentence\tlocale", *(f"m\t{clip.name}\t{clip.text}\tbe" for clip in clips)]
    (folder / "be" / "train.tsv").write_text("\n".join(lines) + "\n")
    return folder


KINDS: dict[str, Callable[[Path, Sequence[Clip]], Path]] = {
    "parquet": as_parquet,
    "manifest": as_manifest,
    "audiofolder": as_audiofolder,
    "webdataset": as_tar,
    "kaldi": as_kaldi,
    "saved_dataset": as_saved_dataset,
    "common_voice": as_common_voice,
}


def of_parquet(train: Trainer, clips: list[Clip]) -> Path:
    """A run on parquet in row groups of as many rows as the chunks of all other kinds have, without data workers."""
    data = made_once(train.shared / "clips-as-parquet", lambda folder: as_parquet(folder, clips))
    return train.reference(**SHORT, data__path=data)


def learned(run_dir: Path) -> tuple[str, list[tuple[int, int]]]:
    """The weights, and how many label tokens and unusable rows there were at each step."""
    return digest(run_dir), [(row["label_tokens"], row["unusable"]) for row in metrics(run_dir).values()]


CHECKED = ("webdataset",)  # in CI, whose other trainings read parquet; all of them in `make test-long`


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", [kind if kind in CHECKED else pytest.param(kind, marks=pytest.mark.matrix) for kind in KINDS]
)
def test_every_kind_of_source_gives_the_same_weights_with_any_workers(train: Trainer, clips: list[Clip], kind: str):
    data = KINDS[kind](train.folder / "data", clips)
    for workers in (0, 1) if kind != "parquet" else (1,):
        run_dir = train(f"of-{workers}", **SHORT, data__path=data, data__workers=workers)
        assert learned(run_dir) == learned(of_parquet(train, clips))


@pytest.mark.matrix
def test_a_mix_of_two_kinds_gives_the_weights_of_that_mix_in_one_kind(train: Trainer, clips: list[Clip]):
    parts = {"manifest": clips[:60], "webdataset": clips[60:]}
    one_kind = [as_parquet(train.folder / f"{kind}-as-parquet", part) for kind, part in parts.items()]
    two_kinds = [KINDS[kind](train.folder / kind, part) for kind, part in parts.items()]
    run_dirs = []
    for workers, (first, second) in ((0, one_kind), (2, two_kinds)):
        sources = f"[{{path: {first}, weight: 3}}, {{path: {second}, weight: 1}}]"
        settings = SHORT | {"data__path": "", "data__sources": sources, "data__workers": workers}
        run_dirs.append(train(f"of-{workers}", **settings))
    assert learned(run_dirs[0]) == learned(run_dirs[1])


@pytest.mark.matrix
def test_a_killed_run_on_tar_shards_with_workers_ends_in_the_same_weights(train: Trainer, clips: list[Clip]):
    settings = SHORT | {"data__path": as_tar(train.folder / "data", clips), "data__workers": 2}
    assert train.interrupt("killed", logged(3), signal.SIGKILL, **settings) == -signal.SIGKILL
    run_dir = train("killed", **settings)
    assert '"event": "resumed"' in (run_dir / "metrics.jsonl").read_text(), "it went on from a checkpoint"
    assert learned(run_dir) == learned(of_parquet(train, clips))
