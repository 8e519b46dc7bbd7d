"""pseudolabel: labels for audio without text, filtered, each with its origin, the same after any interruption."""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import Trainer, run, run_script
from tests.learnt_speech import sentences
from tests.starts import Ended
from whisper_ft.cli.pseudolabel.audio_pool import FilePool, RowPool, open_pool
from whisper_ft.cli.pseudolabel.held_out_guard import HeldOutGuard
from whisper_ft.cli.pseudolabel.label_folder import LabelFolder
from whisper_ft.cli.pseudolabel.labelling_arguments import parse_arguments
from whisper_ft.cli.pseudolabel.labelling_check import refuse_impossible_labelling
from whisper_ft.cli.pseudolabel.labelling_session import share_of
from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.cli.pseudolabel.rejection import LIMITS, rejection
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.pseudolabel import KeepLimits, UnlabelledConfig
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Row
from whisper_ft.runtime.errors import RunError, UsageError
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.scoring.transcript_agreement import disagreement

PROGRAM = "whisper_ft/__main__.py"
OFF = [text for limit in LIMITS if limit.setting != "max_disagreement" for text in (f"--{limit.setting}", "null")]
BEAMS = ["--agree_beams", "2", "--max_disagreement", "null"]
KILLED = 9


def label(model: Path | str, data: Path | str, out: Path, *options: object, processes: int = 1) -> Ended:
    given = ["--data.path", data, "--out", out, *options]
    return run(PROGRAM, "pseudolabel", str(model), *map(str, given), processes=processes)


def files_of(folder: Path) -> dict[str, str]:
    """Digests of all files but the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def summary_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "pseudolabel.json").read_text())["summary"])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A table of 100 clips without a column of text, in several row groups."""
    folder = tmp_path_factory.mktemp("pool")
    table = pa.concat_tables([pq.read_table(path) for path in sorted((corpus / "train").glob("*.parquet"))])
    pq.write_table(table.drop_columns(["sentence"]), folder / "clips.parquet", row_group_size=40)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, learnt: Path, sounds: Path) -> Path:
    """Labels of a folder of files, one of them no audio and one cut short, with the windows of a second search."""
    folder = tmp_path_factory.mktemp("labelled")
    shutil.copytree(sounds, folder / "files")
    (folder / "files/noise.mp3").write_bytes(b"no audio")
    whole = (sounds / "long.wav").read_bytes()
    (folder / "files/short.wav").write_bytes(whole[: len(whole) // 3])
    (folder / "files/a.txt").write_text("a text beside a file is not read")
    ended = label(learnt, folder / "files", folder / "out", *OFF, *BEAMS)
    assert ended.code == 0, ended.out + ended.err
    return folder


@pytest.mark.long
def test_every_window_is_kept_or_rejected_and_the_texts_are_those_of_transcribe(
    labelled: Path, learnt: Path, tmp_path: Path
):
    out, summary = labelled / "out", summary_of(labelled / "out")
    windows, kept, rejected = lines_of(out / "windows.jsonl"), records_of(out), lines_of(out / "rejected.jsonl")
    assert (len(kept), len(rejected)) == (summary["kept"], summary["rejected"])
    assert len(kept) + len(rejected) == len(windows) == summary["windows"]
    assert {row["audio"]["path"] for row in kept}.isdisjoint(row["id"] for row in rejected)
    problems = {row["recording"]: row["reason"] for row in rejected if row["reason"] not in ("empty", "token_limit")}
    assert problems == {"noise.mp3": "decode_error", "short.wav": "truncated"}
    assert len([window for window in windows if window["source"] == "short.wav"]) > 1, "its first part is labelled"
    ended = run(PROGRAM, "transcribe", str(learnt), str(labelled / "files"), "--out", str(tmp_path), "--to", "json")
    assert ended.code == 4, "two files cannot be read to their ends"
    for path in sorted(tmp_path.rglob("*.json")):
        transcript = json.loads(path.read_text(encoding="utf-8"))
        name = str(Path(transcript["file"]).relative_to(labelled / "files"))
        assert transcript["text"] == " ".join(
            window["text"] for window in windows if window["source"] == name and window["text"]
        )


@pytest.mark.long
def test_each_kept_row_names_its_origin(labelled: Path, learnt: Path):
    for row in records_of(labelled / "out"):
        assert row["language"] == "be"
        assert row["sentence"].strip()
        assert row["start"] < row["end"] <= row["start"] + 5.001
        assert row["recording"] in row["audio"]["path"]
        assert (row["model"], len(row["model_sha256"])) == (learnt.name, 64)
        assert json.loads(row["settings"])["decoding"]["num_beams"] == 1
        assert row["avg_logprob"] < 0 < row["compression_ratio"]
        assert 0 <= row["disagreement"] <= 1
        heard = soundfile.info(io.BytesIO(row["audio"]["bytes"]))
        assert heard.duration == pytest.approx(row["end"] - row["start"], abs=0.1)
    whole = next(row for row in records_of(labelled / "out") if row["audio"]["path"] == "a.mp3")
    assert whole["audio"]["bytes"] == (labelled / "files/a.mp3").read_bytes()


@pytest.mark.long
def test_the_labels_train(labelled: Path, train: Trainer):
    train("run", steps=2, eval__every=0, eval__path="", data__path=labelled / "out")


@pytest.mark.long
def test_the_table_of_a_pool_needs_no_text_and_two_processes_write_the_same_bytes(
    learnt: Path, pool: Path, tmp_path: Path
):
    for processes in (1, 2):
        ended = label(learnt, pool, tmp_path / str(processes), *OFF, processes=processes)
        assert ended.code == 0, ended.out + ended.err
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert summary_of(tmp_path / "1")["windows"] == 100


def killed_again_and_again(folder: Path, every: int, arguments: Sequence[str]) -> int:
    """Label in small blocks, killed after each `every` blocks or shards (0: never). Returns the number of starts."""
    source = f"""
import os
from whisper_ft.cli.prepare.shards import ShardPass
from whisper_ft.cli.pseudolabel import audio_pool, labelling
from whisper_ft.cli.pseudolabel.block_log import BlockLog
from whisper_ft.cli.pseudolabel.label_folder import LabelFolder
from whisper_ft.__main__ import main
audio_pool.PART_BYTES, labelling.BLOCK_WINDOWS, left = 200_000, 4, [{every}]
def dying(call):
    def called(*given):
        result = call(*given)
        left[0] -= 1
        if not left[0]:
            os._exit({KILLED})
        return result
    return called
steps = (BlockLog, "append"), (ShardPass, "_write_file"), (LabelFolder, "take_windows"), (LabelFolder, "finish")
for owner, name in steps:
    setattr(owner, name, dying(getattr(owner, name)))
main(sys.argv[1:])
"""
    starts = 1
    while (ended := run_script(source, *arguments)).code == KILLED:
        starts += 1
        for log in (folder / ".blocks").glob("*.jsonl"):
            with log.open("ab") as file:
                file.write(b'{"turn": 0, "part": 0, "blo')  # half a line
    assert ended.code == 0, ended.out + ended.err
    return starts


@pytest.mark.long
def test_a_labelling_that_is_killed_after_each_step_ends_in_the_same_bytes(learnt: Path, sounds: Path, tmp_path: Path):
    def arguments(out: Path) -> list[str]:
        given = [learnt, "--data.path", sounds, "--out", out, *OFF, *BEAMS, "--shard_mb", 0.2]
        return ["pseudolabel", *map(str, given), "--group_mb", "0.1"]

    killed_again_and_again(tmp_path / "once", 0, arguments(tmp_path / "once"))
    starts = killed_again_and_again(tmp_path / "killed", 1, arguments(tmp_path / "killed"))
    assert starts > 8
    assert files_of(tmp_path / "once") == files_of(tmp_path / "killed")
    assert len(list((tmp_path / "once").glob("*.parquet"))) > 1


@pytest.mark.long
def test_a_killed_labelling_continues(learnt: Path, sounds: Path, tmp_path: Path):
    def arguments(out: Path) -> list[str]:
        return ["pseudolabel", *map(str, [learnt, "--data.path", sounds / "deep", "--out", out, *OFF])]

    killed_again_and_again(tmp_path / "once", 0, arguments(tmp_path / "once"))
    assert killed_again_and_again(tmp_path / "killed", 2, arguments(tmp_path / "killed")) > 1
    assert files_of(tmp_path / "once") == files_of(tmp_path / "killed")


@pytest.mark.long
def test_other_limits_are_applied_without_a_model(labelled: Path, tmp_path: Path):
    """The folder of the model may be gone, and the limits that are not given stay."""
    before = lines_of(labelled / "out/windows.jsonl")
    logprobs = sorted(window["avg_logprob"] for window in before if window["avg_logprob"] is not None)
    limit = logprobs[len(logprobs) // 2]
    given = ["--keep_from", labelled / "out", "--out", tmp_path / "out", "--min_logprob", limit]
    ended = run(PROGRAM, "pseudolabel", *map(str, given))
    assert ended.code == 0, ended.out + ended.err
    kept, rejected = records_of(tmp_path / "out"), lines_of(tmp_path / "out/rejected.jsonl")
    assert lines_of(tmp_path / "out/windows.jsonl") == before
    assert len(kept) + len(rejected) == len(before)
    assert kept
    assert all(row["avg_logprob"] >= limit for row in kept)
    unlikely = [row for row in rejected if row["reason"] == "unlikely"]
    assert unlikely
    assert all(row["avg_logprob"] < limit for row in unlikely)
    again = run(PROGRAM, "pseudolabel", *map(str, given))
    assert (again.code, "nothing to do" in again.out) == (0, True)
    other = run(PROGRAM, "pseudolabel", *map(str, [*given[:-1], -0.01]))
    assert (other.code, other.err.count("\n"), "--min_logprob" in other.err) == (2, 1, True)


@pytest.mark.long
def test_a_held_out_clip_is_left_out_by_its_sound_and_by_its_sentence(learnt: Path, corpus: Path, tmp_path: Path):
    table = pa.concat_tables([pq.read_table(path) for path in sorted((corpus / "test").glob("*.parquet"))])
    rows = table.to_pylist()
    samples, rate = soundfile.read(io.BytesIO(rows[0]["audio"]["bytes"]), dtype="int16")
    (tmp_path / "pool").mkdir()
    soundfile.write(tmp_path / "pool/other-name.wav", samples, rate)  # other bytes, the same sound
    (tmp_path / "pool/same-bytes.mp3").write_bytes(rows[1]["audio"]["bytes"])
    soundfile.write(tmp_path / "pool/free.wav", samples[: len(samples) * 2 // 3], rate)
    learnt_row = sentences(corpus / "validation")[0]
    (tmp_path / "pool/learnt.flac").write_bytes(learnt_row.audio)
    spoken_by_another = {**rows[2], "sentence": learnt_row.text}
    held_out = pa.Table.from_pylist([*rows[:2], spoken_by_another], table.schema)
    pq.write_table(held_out, tmp_path / "held-out.parquet")
    ended = label(learnt, tmp_path / "pool", tmp_path / "out", *OFF, "--held_out", tmp_path / "held-out.parquet")
    reasons = {row["id"]: row["reason"] for row in lines_of(tmp_path / "out/rejected.jsonl")}
    assert reasons.pop("free.wav", None) != "held_out_audio", ended.err
    audio = {"other-name.wav": "held_out_audio", "same-bytes.mp3": "held_out_audio"}
    assert reasons == audio | {"learnt.flac": "held_out_text"}


class Held:
    """A held-out set of texts without audio."""

    rows = (3,)

    def read(self, chunk: int) -> list[Row]:
        texts = ("Yes.", "The quick brown fox jumps over the lazy dog.", "日本語の文章はここに書いてありますよ")
        return [Row(f"set#{number}", b"", text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("the quick, brown fox jumps over the lazy dog", True),
        ("So: the QUICK brown fox jumps over the lazy dog! And then", True),
        ("brown fox jumps over the lazy", True),
        ("the quick brown fox jumps over the crazy dog", False),
        ("yes", True),
        ("yes he said", False),
        ("ええと、日本語の文章はここに書いてありますよ。", True),
        ("日本語", False),
        ("", False),
    ],
)
def test_a_sentence_of_a_held_out_set_is_found_within_others(text: str, is_found: bool):
    guard = HeldOutGuard([Held()], 80_000, 16_000)  # type: ignore[list-item]
    assert (guard.sentence_of(text) is not None) == is_found


GOOD = PoolWindow(
    0, 0, 0, "a", "a", 0.0, 2.0, text="добры дзень, сябры", language="be", detected_language="be",
    avg_logprob=-0.3, no_speech_prob=0.1, compression_ratio=1.2, disagreement=0.05,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"problem": "decode_error", "text": ""}, "decode_error"),
        ({"hit_token_limit": True}, "token_limit"),
        ({"text": " "}, "empty"),
        ({"compression_ratio": 2.5}, "repetitive"),
        ({"no_speech_prob": 0.7}, "no_speech"),
        ({"no_speech_prob": None}, None),
        ({"avg_logprob": -1.1}, "unlikely"),
        ({"avg_logprob": None}, "unlikely"),
        ({"disagreement": 0.21}, "disagreement"),
        ({"disagreement": None}, None),
        ({"text": "а"}, "too_few_letters"),
        ({"text": "аб" * 40}, "too_many_letters"),
        ({"detected_language": "ru"}, "other_language"),
    ],
)
def test_each_figure_beyond_its_limit_is_a_reason(change: dict[str, Any], reason: str | None):
    found = rejection(replace(GOOD, **change), KeepLimits(require_language=True))
    assert (found and found.code) == reason
    off = KeepLimits(None, None, None, None, None, None)
    assert (rejection(replace(GOOD, **change), off) is None) == (reason not in ("decode_error", "token_limit", "empty"))


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [("Добры дзень!", "добры, дзень", 0.0), ("", "...", 0.0), ("abcd", "abxy", 0.5), ("abc", "", 1.0)],
)
def test_case_and_punctuation_are_no_disagreement(first: str, second: str, share: float):
    assert disagreement(first, second) == disagreement(second, first) == share


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_part_has_one_process(world: int):
    weights = [5, 1, 1, 40, 2, 2, 9, 0, 3]
    shares = [share_of(weights, rank, world) for rank in range(world)]
    assert sorted(place for share in shares for place in share) == [*range(len(weights))]
    assert [*share_of([], 0, world)] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ([], ("--out",)),
        (["--out", "x", "--data.path", "nowhere.parquet"], ("--data.path", "nowhere.parquet")),
        (["--out", "x", "--max_no_speech", "2"], ("--max_no_speech", "2", "from 0 to 1")),
        (["--out", "x", "--min_logprob", "0.5"], ("--min_logprob", "0.5")),
        (["--out", "x", "--min_pace", "9", "--max_pace", "8"], ("--min_pace", "9", "8")),
        (["--out", "x", "--max_disagreement", "0.1"], ("--max_disagreement", "--second", "--agree_beams")),
        (["--out", "x", "--agree_beams", "1"], ("--agree_beams", "at least 2")),
        (["--out", "x", "--agree_beams", "3", "--decoding.num_beams", "3"], ("--agree_beams 3", "num_beams")),
        (["--out", "x", "--decoding.with_loss", "true"], ("--decoding.with_loss",)),
        (["--out", "x", "--decoding.detect_language", "true"], ("--decoding.detect_language", "--data.language be")),
        (["--out", "x", "--data.segments_column", "s"], ("--data.segments_column s",)),
        (["--out", "x", "--held_out"], ("--held_out",)),
        (["--out", "x", "--held_out", "gone.parquet"], ("--held_out", "gone.parquet")),
        (["--out", "x", "--second", "./gone"], ("--second", "./gone")),
        (["--out", "x", "--group_mb", "0"], ("--group_mb", "0")),
        (["--out", "x", "--min_logprop", "0"], ("min_logprop", "min_logprob")),
        (["--out", "x", "--keep_from", "nowhere"], ("nowhere", "pseudolabel.json")),
    ],
)
def test_settings_that_cannot_work_are_refused(options: list[str], facts: Sequence[str], corpus: Path, learnt: Path):
    data = [] if "--data.path" in options else ["--data.path", str(corpus / "test")]
    with pytest.raises(UsageError) as refused:
        refuse_impossible_labelling(parse_arguments([str(learnt), *data, "--data.language", "be", *options]))
    assert "\n" not in str(refused.value)
    assert all(fact in str(refused.value) for fact in facts), refused.value


def test_a_model_that_has_learned_the_held_out_set_is_refused(trained: Path, corpus: Path, tmp_path: Path):
    def lines(data: str, held_out: str) -> list[str]:
        given = [
            "--data.path",
            str(corpus / data),
            "--held_out",
            str(corpus / held_out),
            "--out",
            str(tmp_path / "out"),
        ]
        return refuse_impossible_labelling(parse_arguments([str(trained), *given]))

    with pytest.raises(UsageError, match="was trained on it"):
        lines("test", "train")
    assert lines("test", "validation") == []
    assert [line.startswith("warning: ") for line in lines("train", "test")] == [True]


def test_several_held_out_sets_are_one_list(corpus: Path, tmp_path: Path):
    given = [
        "m",
        "--data.path",
        "x",
        "--out",
        "y",
        "--held_out",
        "a",
        "--held_out=b",
        "--held_out",
        "[{path: c, split: d}, e]",
    ]
    config = parse_arguments(given)
    assert config.model == "m"
    assert [(one.path, one.split) for one in config.held_out] == [("a", None), ("b", None), ("c", "d"), ("e", None)]


@pytest.mark.long
def test_a_folder_in_use_or_with_other_files_is_left_alone(learnt: Path, corpus: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    ended = label(learnt, corpus / "test", tmp_path / "mine")
    assert (ended.code, "mine" in ended.err) == (2, True)
    (tmp_path / "used").mkdir()
    with lock_folder(tmp_path / "used", "pseudolabel"):
        ended = label(learnt, corpus / "test", tmp_path / "used", processes=2)
        assert (ended.code, ended.err.count("error: ")) == (7, 1), "both processes end, and one says why"


@pytest.mark.long
def test_a_second_model_and_the_detected_language_decide_too(
    learnt: Path, micro_whisper: Path, sounds: Path, tmp_path: Path
):
    """The second model is untrained, and the language that the first one detects is any."""
    given = ["--data.language", "be", "--second", micro_whisper, "--require_language", "true", *OFF]
    ended = label(learnt, sounds / "deep", tmp_path / "out", *given, "--decoding.timestamps", "true")
    windows = lines_of(tmp_path / "out/windows.jsonl")
    assert ended.code in (0, 4), ended.err
    for window in windows:
        assert window["detected_language"]
        assert window["disagreement"] == pytest.approx(disagreement(window["text"], window["other_text"]), abs=1e-4)
        assert all(0 <= start < end <= window["seconds"] for start, end, _ in window["segments"] or ())
    reasons = {row["id"]: row["reason"] for row in lines_of(tmp_path / "out/rejected.jsonl")}
    limits = KeepLimits(None, None, None, 0.2, None, None, require_language=True)
    found = {window["id"]: rejection(PoolWindow(**window), limits) for window in windows}
    assert reasons == {name: reason.code for name, reason in found.items() if reason is not None}


@pytest.mark.parametrize(
    ("detects", "required", "detected", "advice"),
    [
        (True, False, "be", "--data.language CODE"),
        (False, False, None, "--require_language true"),
        (False, True, None, None),
        (False, False, "be", None),
    ],
    ids=["labelled as detected", "not detected", "nothing was heard", "filtered before"],
)
def test_a_language_is_required_later_only_where_it_can_be_compared(
    tmp_path: Path, detects: bool, required: bool, detected: str | None, advice: str | None
):
    given = ["m", "--data.path", "x", "--out", str(tmp_path / "out"), "--require_language", str(required).lower()]
    folder = LabelFolder(tmp_path / "out", parse_arguments(given), {"rows": 1})
    folder.begin_turn(0, {"decoding": {"detect_language": detects}, "window": (80_000, 16_000)}, {})
    folder.take_windows([replace(GOOD, language="be", detected_language=detected)])
    again = ["--keep_from", str(tmp_path / "out"), "--out", str(tmp_path / "new"), "--require_language", "true"]
    if advice is None:
        assert parse_arguments(again).require_language
        return
    with pytest.raises(UsageError) as refused:
        parse_arguments(again)
    assert "\n" not in str(refused.value)
    assert advice in str(refused.value)


@pytest.mark.long
def test_a_required_language_is_no_matter_where_nothing_can_be_heard(micro_whisper: Path, tmp_path: Path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/noise.mp3").write_bytes(b"no audio")
    given = ["--data.language", "be", "--require_language", "true"]
    ended = label(micro_whisper, tmp_path / "files", tmp_path / "out", *given)
    assert (ended.code, "--require_language" in ended.err) == (4, False)
    assert [row["id"] for row in lines_of(tmp_path / "out/rejected.jsonl")] == ["noise.mp3"]


@pytest.mark.long
def test_a_language_that_was_not_detected_cannot_be_required_later(labelled: Path, tmp_path: Path):
    given = ["--keep_from", labelled / "out", "--out", tmp_path / "out", "--require_language", "true"]
    ended = run(PROGRAM, "pseudolabel", *map(str, given))
    assert (ended.code, ended.err.count("\n"), "--require_language" in ended.err) == (2, 1, True)


def test_a_folder_of_another_model_is_not_continued(tmp_path: Path):
    config = parse_arguments(["m", "--data.path", "x", "--out", str(tmp_path / "out")])
    folder = LabelFolder(tmp_path / "out", config, {"rows": 1})
    job = {"model": "a", "decoding": {"num_beams": 1}, "window": (80_000, 16_000)}
    folder.begin_turn(0, job, {})
    folder.begin_turn(0, job, {})
    for other in (job | {"model": "b"}, job | {"decoding": {"num_beams": 2}}):
        with pytest.raises(UsageError, match="another model"):
            folder.begin_turn(0, other, {})
    with pytest.raises(UsageError, match="--second"):
        folder.begin_turn(1, job | {"window": (480_000, 16_000)}, {})


@pytest.mark.long
def test_nothing_kept_ends_with_the_reasons(learnt: Path, sounds: Path, tmp_path: Path):
    ended = label(learnt, sounds / "deep", tmp_path / "out", "--min_logprob", 0)
    assert (ended.code, ended.err.count("error: "), "unlikely" in ended.err) == (4, 1, True)
    assert (tmp_path / "out/pseudolabel.html").exists()
    assert summary_of(tmp_path / "out")["kept"] == 0


def manifest(folder: Path, corpus: Path) -> Path:
    soundfile.write(folder / "a.wav", np.zeros(16_000), 16_000)
    lines = [{"audio": "a.wav"}, {"audio": "a.wav", "offset": 0.2, "duration": 0.5}]
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "list.jsonl"


def half_labelled(folder: Path, corpus: Path) -> Path:
    path = manifest(folder, corpus)
    path.write_text(
        path.read_text().replace('"}', '", "text": 5}') + json.dumps({"audio": "a.wav", "text": "б"}) + "\n"
    )
    return path


def tar(folder: Path, corpus: Path) -> Path:
    import tarfile

    soundfile.write(folder / "a.wav", np.zeros(16_000), 16_000)
    with tarfile.open(folder / "x.tar", "w") as file:
        file.add(folder / "a.wav", "1.wav")
        file.add(folder / "a.wav", "2.wav")
    return folder / "x.tar"


def null_texts(folder: Path, corpus: Path) -> Path:
    rows = [row for path in sorted((corpus / "test").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    table = pa.Table.from_pylist([{"audio": row["audio"], "sentence": None} for row in rows[:3]])
    pq.write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


@pytest.mark.parametrize("write", [manifest, half_labelled, tar, null_texts])
def test_rows_without_texts_are_a_pool_and_no_training_data(write: Any, corpus: Path, tmp_path: Path):
    path = str(write(tmp_path, corpus))
    pool = open_pool(UnlabelledConfig(path=path))
    assert isinstance(pool, RowPool)
    items = pool.items(0)
    assert len(items) > 1
    assert [item.row.problem for item in items] == [None] * len(items)
    assert all(item.audio for item in items)
    if write is half_labelled:
        rows = open_source(SourceConfig(path=path)).read(0)
        assert [row.problem and row.problem[0] for row in rows] == ["bad_label", "bad_label", None]
    else:
        with pytest.raises(RunError, match="text"):
            open_source(SourceConfig(path=path))


def test_files_are_read_as_files_also_if_texts_lie_beside_them(sounds: Path, tmp_path: Path):
    folder = Path(shutil.copytree(sounds, tmp_path / "files"))
    (folder / "a.txt").write_text("тэкст")
    (folder / "phone.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nтэкст\n")
    for path, count in ((folder, 6), (folder / "*.wav", 2), (folder / "a.mp3", 1)):
        pool = open_pool(UnlabelledConfig(path=str(path), language="be"))
        assert isinstance(pool, FilePool)
        items = [item for part in range(len(pool.weights)) for item in pool.items(part)]
        assert [item.row.language for item in items] == ["be"] * count
    with pytest.raises(UsageError, match=r"--data\.split"):
        open_pool(UnlabelledConfig(path=str(folder), split="train"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="unknown data format"):
        open_pool(UnlabelledConfig(path=str(tmp_path / "empty")))
