"""Common Voice as it is delivered: folders and archives, its tables and splits; what a stranger's tar may do."""

import gzip
import io
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.common_voice import open_common_voice
from whisper_ft.data.formats.file_table import FileTable
from whisper_ft.data.storage import gunzip as gunzip_module
from whisper_ft.data.storage.gunzip import gunzip
from whisper_ft.data.storage.tar import TarArchive, tar_members
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import DataError, DiskError, RunError, UsageError

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\taccents\tlocale"
OLD_HEADER = "client_id\tpath\tsentence\tup_votes\taccent"
CLIPS = {f"common_voice_be_{i}.mp3": f"сказ {i}" for i in range(6)}


def mp3(seconds: float = 0.3) -> bytes:
    held = io.BytesIO()
    tone = np.sin(np.arange(int(seconds * 16000)) * 0.2) * 0.3
    soundfile.write(held, tone, 16000, format="MP3")
    return held.getvalue()


def line(clip: str, sentence: str, speaker: str = "m", locale: str = "be") -> str:
    return "\t".join((speaker, clip, "id", sentence, "2", "", locale))


def table(path: Path, *lines: str, header: str = HEADER, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(one + end for one in (header, *lines)), encoding="utf-8", newline="")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The outer folder of a small release."""
    folder = tmp_path / "delivered" / "cv-corpus-27.0-2026-09-11" / "be"
    (folder / "clips").mkdir(parents=True)
    for name in CLIPS:
        (folder / "clips" / name).write_bytes(mp3())
    named = [line(name, text, f"m{i}") for i, (name, text) in enumerate(CLIPS.items())]
    table(folder / "train.tsv", *named[:2])
    table(folder / "dev.tsv", named[2])
    table(folder / "test.tsv", named[3])
    table(folder / "other.tsv", *named[4:], named[0])
    table(folder / "validated.tsv", *named)
    table(folder / "clip_durations.tsv", "common_voice_be_0.mp3\t300", header="clip\tduration[ms]")
    table(folder / "validated_sentences.tsv", header="sentence_id\tsentence")
    return tmp_path / "delivered"


def language_folder(corpus: Path) -> Path:
    return corpus / "cv-corpus-27.0-2026-09-11" / "be"


def packed(folder: Path, name: str) -> Path:
    """The folder as an archive beside it."""
    path = folder.parent / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
        tar.add(folder / "cv-corpus-27.0-2026-09-11", "cv-corpus-27.0-2026-09-11")
    return path


def texts(source: FileTable) -> list[str]:
    return [row.text for chunk in range(len(source.rows)) for row in source.read(chunk)]


def names(source: FileTable) -> list[str]:
    return [source.row_id(chunk, row) for chunk, rows in enumerate(source.rows) for row in range(rows)]


def refused(path: Path | str, **settings: str) -> RunError:
    with pytest.raises(RunError) as error:
        open_common_voice(SourceConfig(path=str(path), **settings))
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("below", [".", "cv-corpus-27.0-2026-09-11", "cv-corpus-27.0-2026-09-11/be"])
def test_any_of_its_folders_will_do_and_ids_are_the_names_of_clips(corpus: Path, below: str):
    source = open_common_voice(SourceConfig(path=str(corpus / below)))
    assert names(source) == ["common_voice_be_0.mp3", "common_voice_be_1.mp3"]
    row = source.read(0)[1]
    assert (row.id, row.text, row.speaker, row.language, row.problem) == (names(source)[1], "сказ 1", "m1", "be", None)
    assert soundfile.info(io.BytesIO(row.audio)).format == "MP3"


@pytest.mark.parametrize("name", ["be.tar", "be.tar.gz", "be.tgz"])
def test_an_archive_gives_the_rows_of_the_folder(corpus: Path, name: str):
    folder = open_common_voice(SourceConfig(path=str(corpus), split="validated"))
    source = open_common_voice(SourceConfig(path=str(packed(corpus, name)), split="validated"))
    assert source.read(0) == folder.read(0)
    assert source.fingerprint() == folder.fingerprint()
    assert pickle.loads(pickle.dumps(source)).read(0) == folder.read(0)


def test_an_archive_is_unpacked_once_and_found_again(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, cache = packed(corpus, "be.tar.gz"), tmp_path / "cache"
    first = gunzip(str(path), cache)
    assert [Path(first)] == list(cache.iterdir())
    before = Path(first).stat()
    moved = path.rename(tmp_path / "delivered" / "be.tar.gz")
    assert gunzip(str(moved), cache) == first
    assert Path(first).stat() == before
    assert capsys.readouterr().err.count("unpacking") == 1
    beside = Path(gunzip(str(moved)))
    assert beside.parent == moved.parent
    moved.write_bytes(gzip.compress(b"another" * 500))
    assert gunzip(str(moved), cache) != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "cut short; get it again"),
        (lambda whole: whole[:-8] + b"\0" * 8, "damaged .*; get it again"),
        (lambda whole: whole[:2000] + b"\0" * 50 + whole[2050:], "damaged .*; get it again"),
    ],
)
def test_a_bad_download_is_named_and_leaves_nothing_that_would_be_used(
    corpus: Path, tmp_path: Path, change: Callable[[bytes], bytes], said: str
):
    path, cache = packed(corpus, "be.tar.gz"), tmp_path / "cache"
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    with pytest.raises(DataError, match=said):
        TarArchive.open(str(path), cache)
    path.write_bytes(whole)
    assert len(TarArchive.open(str(path), cache).names) == 13
    assert len(list(cache.glob("*.tar"))) == 1


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gunzip_module, "MAX_EXTRA_BYTES", 2**20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(DataError, match=r"unpacks to over .* bytes: not an archive of recordings"):
        gunzip(str(tmp_path / "a.tar.gz"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2**16


@pytest.mark.long
def test_processes_that_start_together_unpack_once(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path, cache = packed(corpus, "be.tar.gz"), tmp_path / "cache"
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(gunzip, [str(path)] * 3, [cache] * 3))
    assert [Path(name) for name in set(found)] == list(cache.iterdir())
    assert capfd.readouterr().err.count("unpacking") == 1


def test_a_disk_without_room_is_said_before_anything_is_written(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = packed(corpus, "be.tar.gz")
    usage = gunzip_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(gunzip_module.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DiskError, match=r"\b10 bytes are free\b.*be\.tar\.gz"):
        gunzip(str(path), tmp_path / "cache")


@pytest.mark.parametrize(
    ("split", "clips"),
    [
        (None, [0, 1]),
        ("dev", [2]),
        ("validated", [0, 1, 2, 3, 4, 5]),
        ("other", [4, 5, 0]),
        ("train+dev", [0, 1, 2]),
        ("other+train", [4, 5, 0, 1]),
        ("validated-without-test", [0, 1, 4, 5]),
        ("test+validated-without-test", [3, 0, 1, 4, 5]),
    ],
)
def test_a_split_is_a_table_and_several_have_each_clip_once(corpus: Path, split: str | None, clips: list[int]):
    source = open_common_voice(SourceConfig(path=str(corpus), split=split))
    assert names(source) == [f"common_voice_be_{i}.mp3" for i in clips]


@pytest.mark.parametrize(
    ("sentence", "speaker", "kept"),
    [
        ("Новы сказ", "m9", True),
        ("СКАЗ  2", "m9", False),
        ("сказ\u00a02 ", "m9", False),
        ("Cafe\u0301", "m9", False),
        ("Новы сказ", "m3", False),
        ("", "", True),
    ],
)
def test_validated_without_test_shares_no_sentence_and_no_speaker(
    corpus: Path, sentence: str, speaker: str, kept: bool
):
    folder = language_folder(corpus)
    table(folder / "dev.tsv", line("d.mp3", "сказ 2", "m2"), line("e.mp3", "café", "m4"), line("f.mp3", "", ""))
    table(folder / "validated.tsv", line("a.mp3", "іншы", "m8"), line("b.mp3", sentence, speaker))
    source = open_common_voice(SourceConfig(path=str(corpus), split="validated-without-test"))
    assert names(source) == (["a.mp3", "b.mp3"] if kept else ["a.mp3"])


def test_a_quote_is_a_quote_and_line_ends_and_a_mark_at_the_beginning_are_no_text(corpus: Path):
    said = ['"Так', 'сказаў "ён"', "'", "а\u2028б"]
    path = language_folder(corpus) / "train.tsv"
    table(path, *(line(f"{i}.mp3", text) for i, text in enumerate(said)), end="\r\n")
    path.write_bytes("\ufeff".encode() + path.read_bytes() + b"\r\n\r\n")
    source = open_common_voice(SourceConfig(path=str(corpus)))
    assert texts(source) == said
    assert source.table["language"].to_pylist() == ["be"] * 4


def test_old_releases_lack_locale_and_the_ending_of_clips(corpus: Path):
    path = language_folder(corpus) / "train.tsv"
    table(path, "m0\tcommon_voice_be_0\tтак\t2\t", header=OLD_HEADER)
    row = open_common_voice(SourceConfig(path=str(corpus))).read(0)[0]
    assert (row.id, row.language, row.problem) == ("common_voice_be_0.mp3", "be", None)


def test_the_language_that_is_set_is_that_of_all_rows(corpus: Path):
    rows = open_common_voice(SourceConfig(path=str(corpus), language="be")).read(0)
    assert [row.language for row in rows] == [None, None]


def test_a_row_that_is_not_whole_has_a_problem_and_moves_no_other(corpus: Path):
    path = language_folder(corpus) / "train.tsv"
    good = line("common_voice_be_0.mp3", "так")
    table(path, "m\tcommon_voice_be_1.mp3", line("", "няма"), line("../../../x.mp3", "вонкі"), line("no.mp3", "a"), "x")
    path.write_bytes(path.read_bytes() + line("common_voice_be_2.mp3", "@").encode().replace(b"@", b"\xff") + b"\n")
    path.write_bytes(path.read_bytes() + good.encode())
    for where in (corpus, packed(corpus, "be.tar")):
        rows = open_common_voice(SourceConfig(path=str(where))).read(0)
        assert [row.problem and row.problem[0] for row in rows] == [
            *("bad_line", "missing_file", "outside_root", "missing_file", "bad_line", "bad_label", None)
        ]
        assert [row.id for row in rows][:3] == ["common_voice_be_1.mp3", "train.tsv:3", "../../../x.mp3"]
        assert (rows[0].text, rows[6].text) == ("", "так")


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"language": "be"}, "be"),
        ({"language": "sv"}, "sv-SE"),
        ({"language": "sv-SE"}, "sv-SE"),
        ({"language": "zh_TW"}, "zh-TW"),
        ({"language": "zh", "config_name": "zh-CN"}, "zh-CN"),
    ],
)
def test_of_several_languages_one_is_chosen(corpus: Path, settings: dict[str, str], folder: str):
    for locale in ("sv-SE", "zh-CN", "zh-TW"):
        table(language_folder(corpus).parent / locale / "train.tsv", line(f"{locale}.mp3", "x", locale=locale))
    source = open_common_voice(SourceConfig(path=str(corpus), **settings))
    assert names(source)[0] == ("common_voice_be_0.mp3" if folder == "be" else f"{folder}.mp3")
    for ambiguous, listed in (({}, "be, sv-SE, zh-CN, zh-TW"), ({"language": "zh"}, "zh-CN, zh-TW")):
        assert str(refused(corpus, **ambiguous)).endswith(f"set --data.config_name to one of {listed}")


def test_what_is_no_corpus_is_refused_with_what_is_expected(corpus: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "clips/ and train.tsv" in str(refused(tmp_path / "empty"))
    for path in (tmp_path / "none.tar.gz", tmp_path / "none"):
        assert str(refused(path)).startswith(f"{path}: ")
    unknown = str(refused(corpus, split="valid"))
    assert all(fact in unknown for fact in ("'valid'", "--data.split", "clip_durations, dev, other"))
    wrong = refused(corpus, split="clip_durations")
    assert isinstance(wrong, UsageError)
    assert "set --data.audio_column to one of clip, duration[ms]" in str(wrong)
    table(language_folder(corpus) / "train.tsv")
    assert isinstance(refused(corpus), DataError)


def test_the_corpus_may_be_remote(corpus: Path, tmp_path: Path):
    memory = fsspec.filesystem("memory")
    path = packed(corpus, "be.tar.gz")
    memory.pipe("/far/be.tar.gz", path.read_bytes())
    with gzip.open(path) as file:
        memory.pipe("/far/be.tar", file.read())
    memory.put(str(corpus), "/far/folder", recursive=True)
    here = open_common_voice(SourceConfig(path=str(corpus))).read(0)
    for where in ("memory://far/be.tar", "memory://far/folder", "memory://far/be.tar.gz"):
        assert open_common_voice(SourceConfig(path=where), cache=tmp_path / "cache").read(0) == here


@pytest.fixture
def spontaneous(tmp_path: Path) -> Path:
    folder = tmp_path / "sps-corpus-5.0-2026-09-11-be"
    said = [
        ("a", "так [disfluency] і [noise]  не", "train", "p"),
        ("b", "", "unassigned", "q"),
        ("c", "трэба", "dev", "r"),
        ("d", "[laugh]", "test", "s"),
        ("e", "[noise]ТРЭБА", "train", "t"),
    ]
    rows = [f"{speaker}\t1\t{name}.mp3\t300\tчаму?\t{text}\t{split}\t" for name, text, split, speaker in said]
    header = "client_id\taudio_id\taudio_file\tduration_ms\tprompt\ttranscription\tsplit\tquality_tags"
    table(folder / "ss-corpus-be.tsv", *rows, header=header)
    table(folder / "ss-reported-audios-be.tsv", header="client_id\taudio_id")
    (folder / "audios").mkdir()
    for name, *_ in said:
        (folder / "audios" / f"{name}.mp3").write_bytes(mp3())
    return folder


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (None, {"a.mp3": "так і не", "e.mp3": "ТРЭБА"}),
        ("dev+test", {"c.mp3": "трэба", "d.mp3": ""}),
        ("unassigned", {"b.mp3": ""}),
        ("validated", {"a.mp3": "так і не", "c.mp3": "трэба", "d.mp3": "", "e.mp3": "ТРЭБА"}),
        ("validated-without-test", {"a.mp3": "так і не"}),
    ],
)
def test_spontaneous_speech_is_read_without_the_tags_of_its_transcribers(
    spontaneous: Path, split: str | None, said: dict[str, str]
):
    rows = open_common_voice(SourceConfig(path=str(spontaneous), split=split)).read(0)
    assert {row.id: row.text for row in rows} == said
    assert all(row.audio and row.problem is None and row.language == "be" for row in rows)
    assert "has no split 'other'" in str(refused(spontaneous, split="other"))


def tar_of(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


LONG = "ф" * 60 + "/" + "a" * 150 + ".mp3"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_index_has_the_places_that_tarfile_finds(tmp_path: Path, form: int):
    files = {"a.mp3": b"1" * 700, "./b/c.mp3": b"", LONG: b"2" * 512, "z": b"3"}
    path = tar_of(tmp_path / "a.tar", files, format=form)
    whole = path.read_bytes()
    found = {name: whole[offset : offset + size] for name, offset, size in tar_members(str(path))}
    assert found == {name.removeprefix("./"): content for name, content in files.items()}


def test_an_archive_without_an_end_mark_and_one_of_ustar_prefixes_are_read(tmp_path: Path):
    deep = "d" * 100 + "/" + "e" * 80
    path = tar_of(tmp_path / "a.tar", {deep: b"1" * 512}, format=tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[:1024])
    assert list(tar_members(str(path))) == [(deep, 512, 512)]


def hostile() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Members that should not be used, with good ones around."""
    for name in ("good/a.mp3", "/etc/passwd", "../up.mp3", "good/../../up.mp3", "."):
        yield tarfile.TarInfo(name), b"data"
    for name, kind in {
        "good/link.mp3": tarfile.SYMTYPE,
        "good/hard.mp3": tarfile.LNKTYPE,
        "good/device": tarfile.CHRTYPE,
        "good/pipe": tarfile.FIFOTYPE,
        "good": tarfile.DIRTYPE,
    }.items():
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        yield info, b""
    sparse = tarfile.TarInfo("good/sparse.mp3")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "x", "GNU.sparse.realsize": str(10**15)}
    yield sparse, b"data"
    yield tarfile.TarInfo("good/b.mp3"), b"more"


def write_hostile(path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in hostile():
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_of_a_hostile_archive_only_the_plain_files_inside_are_used(tmp_path: Path):
    opened = TarArchive.open(str(write_hostile(tmp_path / "a.tar")))
    assert opened.names.to_pylist() == ["good/a.mp3", "good/b.mp3"]
    assert opened.read("good/b.mp3") == b"more"
    shelf = opened.below("good")
    assert shelf.read("a.mp3") == b"data"
    for name, reason in {
        "link.mp3": "missing_file",
        "../good/../x": "outside_root",
        "/etc/passwd": "outside_root",
        "..": "outside_root",
        "": "outside_root",
    }.items():
        with pytest.raises(RejectedError) as error:
            shelf.read(name)
        assert error.value.reason == reason, name


def forged(whole: bytes, size: bytes) -> bytes:
    """An archive whose first header claims a size, with the right sum."""
    header = bytearray(whole[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + whole[512:]


@pytest.mark.parametrize(
    "size", [b"%011o\0" % (2**33 - 1), b"\x80" + (2**40).to_bytes(11, "big"), b"\xff" * 12, b"-0000000001\0", b"x" * 12]
)
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"S", b"?"])
def test_no_size_is_believed_that_the_archive_does_not_have(tmp_path: Path, size: bytes, kind: bytes):
    path = tar_of(tmp_path / "a.tar", {"a.mp3": b"data"})
    whole = bytearray(path.read_bytes())
    whole[156:157] = kind
    path.write_bytes(forged(bytes(whole), size))
    with pytest.raises(DataError, match=f"^{path}: "):
        list(tar_members(str(path)))


@pytest.mark.parametrize("kept", [100, 512, 600, 912, 1023, 1500, 1600, 2047, 2148])
def test_an_archive_cut_short_is_refused(tmp_path: Path, kept: int):
    path = tar_of(tmp_path / "a.tar", {"a.mp3": b"1" * 400, "b.mp3": b"2" * 600})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"^{path}: "):
        list(tar_members(str(path)))


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path):
    path = tar_of(tmp_path / "a.tar", {"a.mp3": b"1" * 400, "b.mp3": b"2" * 600})
    damaged = bytearray(path.read_bytes())
    damaged[1024 + 10] ^= 1  # in the name of b.mp3
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=f"^{path}: .*1024"):
        list(tar_members(str(path)))


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_without_end_are_refused(tmp_path: Path, kind: bytes):
    path = tar_of(tmp_path / "a.tar", {"a.mp3": b"11 path=x\n\0"})
    header = bytearray(path.read_bytes()[:1024])
    header[156:157] = kind
    path.write_bytes(forged(bytes(header), b"%011o\0" % 512) * 2000)
    with pytest.raises(DataError, match=f"^{path}: "):
        list(tar_members(str(path)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"no tar at all" * 100, "not a tar"),
        (gzip.compress(np.random.default_rng(0).bytes(2000)), "gunzip"),
    ],
)
def test_what_is_no_tar_is_said(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(tar_members(str(tmp_path / "a.tar")))


def test_of_two_files_of_one_name_the_last_counts_as_it_would_when_unpacked(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for content in (b"old", b"new"):
            info = tarfile.TarInfo("a.mp3")
            info.size = 3
            tar.addfile(info, io.BytesIO(content))
    assert TarArchive.open(str(path)).read("a.mp3") == b"new"


def test_a_file_that_went_missing_after_it_was_indexed_is_a_problem_of_its_row(tmp_path: Path):
    path = tar_of(tmp_path / "a.tar", {"a.mp3": b"1" * 600, "b.mp3": b""})
    opened = TarArchive.open(str(path))
    path.write_bytes(b"")
    assert opened.read("b.mp3") == b""
    for _ in range(2):
        with pytest.raises(RejectedError, match=r"unreadable_file: a\.mp3"):
            opened.read("a.mp3")
        path.unlink(missing_ok=True)
