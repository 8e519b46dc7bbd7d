"""The demo's corpus: real speech of distinct sentences, the same bytes every time, in shards like those of the Hub."""

import hashlib
import io
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from whisper_ft.cli.demo.corpus import ROWS_PER_GROUP, main, write_corpus
from whisper_ft.cli.demo.folder import write_once
from whisper_ft.cli.demo.sentences import LANGUAGES, plain, sentences, vocabulary
from whisper_ft.cli.demo.speech import synthesise

WINDOW_SECONDS = 5
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "be"
    write_corpus(folder, train=240, validation=10, test=10, seed=3, processes=1)
    return folder


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for shard in sorted(folder.glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


def clips(folder: Path) -> list[tuple[np.ndarray, int, str]]:
    """Samples, rate and format of every clip of every split."""
    heard = []
    for split in SPLITS:
        for row in rows(folder / split):
            file = io.BytesIO(row["audio"]["bytes"])
            kind = soundfile.info(file).format
            file.seek(0)
            heard.append((*soundfile.read(file), kind))
    return heard


def test_the_same_arguments_give_the_same_bytes_with_one_process_or_two(tmp_path: Path):
    sizes = {"train": 45, "validation": 4, "test": 4, "seed": 11}
    for processes in (1, 2):
        assert write_corpus(tmp_path / str(processes), **sizes, processes=processes)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_larger_training_split_leaves_the_test_split_as_it_is(tmp_path: Path):
    for train in (4, 8):
        write_corpus(tmp_path / str(train), train=train, validation=2, test=4, processes=1)
    assert digests(tmp_path / "4" / "test") == digests(tmp_path / "8" / "test")


def test_no_sentence_is_in_two_splits_or_twice_in_one(spoken: Path):
    counts = Counter(plain(row["sentence"]) for split in SPLITS for row in rows(spoken / split))
    assert len(counts) == counts.total() == 260


def test_each_split_is_several_shards_with_row_groups_of_fifty(spoken: Path):
    shards = {split: sorted((spoken / split).glob("*.parquet")) for split in SPLITS}
    assert {split: len(paths) for split, paths in shards.items()} == {"train": 4, "validation": 2, "test": 2}
    assert shards["train"][0].name == "train-00000-of-00004.parquet"
    footer = pq.read_metadata(shards["train"][0])
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [ROWS_PER_GROUP, 10]


def test_flac_at_16_khz_and_mp3_at_48_khz_both_occur_and_every_clip_fits_the_window(spoken: Path):
    heard = clips(spoken)
    assert {(kind, rate) for _, rate, kind in heard} == {("FLAC", 16_000), ("MP3", 48_000)}
    for samples, rate, _ in heard:
        assert samples.ndim == 1
        assert 0.5 < len(samples) / rate < WINDOW_SECONDS
        assert 0.05 < np.abs(samples).max() < 1


def test_speakers_take_turns(spoken: Path):
    speakers = Counter(row["client_id"] for row in rows(spoken / "train"))
    assert len(speakers) >= 10
    assert max(speakers.values()) < 0.2 * speakers.total()


def test_belarusian_has_a_hundred_words_and_all_three_apostrophes():
    texts = sentences("be", 1_000, seed=0)
    words = {word for text in texts for word in plain(text).split()}
    assert len(words) >= 100
    assert len([word for word in words if "'" in word]) >= 25
    assert {
        "сям'я",
        "аб'ява",
        "п'е",
        "раз'яднаць",
        "з'ява",
        "інтэрв'ю",
        "надвор'е",
        "здароўе",
        "дзень",
        "зіма",
    } <= words
    for apostrophe in "'\u2019\u02bc":
        assert sum(apostrophe in text for text in texts) > 100
    for mark in ".!?,«»":
        assert any(mark in text for text in texts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_four_or_five_words_and_every_word_of_the_grammar_is_used(language: str):
    texts = sentences(language, 1_300, seed=0)
    assert {len(plain(text).split()) for text in texts} == {4, 5}
    assert all(text[0] == text[0].upper() for text in texts)
    used = {word for text in texts for word in plain(text).split()}
    assert len(used) >= 40
    assert set(vocabulary(language)) <= used


def test_a_longer_list_of_sentences_begins_with_the_shorter():
    assert sentences("be", 300, seed=5)[:100] == sentences("be", 100, seed=5)
    assert sentences("be", 100, seed=5) != sentences("be", 100, seed=6)


def test_short_u_follows_a_vowel():
    texts = [plain(text) for text in sentences("be", 1_000, seed=0)]
    assert any("сястра ўвечары" in text for text in texts)
    assert any("брат увечары" in text for text in texts)


def test_too_many_sentences_are_refused_with_the_number_there_is():
    with pytest.raises(ValueError, match=r"about [\d,]+ sentences in 'sv', 100,000 were asked for"):
        sentences("sv", 100_000, seed=0)


def test_speech_does_not_depend_on_what_was_said_before():
    said = [("Сям'я п'е чай.", "be", "m1"), ("Дзень і зіма!", "be", "f2"), ("Jag ser en älg.", "sv", "linda")]
    forwards = [synthesise(*sentence)[0] for sentence in said]
    backwards = [synthesise(*sentence)[0] for sentence in reversed(said)]
    for first, again in zip(forwards, reversed(backwards), strict=True):
        assert np.array_equal(first, again)


def test_the_three_apostrophes_sound_the_same_and_unlike_none():
    spoken = [synthesise(f"раз{apostrophe}яднаць", "be")[0] for apostrophe in ("'", "\u2019", "\u02bc", "")]
    assert np.array_equal(spoken[0], spoken[1])
    assert np.array_equal(spoken[0], spoken[2])
    assert not np.array_equal(spoken[0], spoken[3])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_spoken_at_a_natural_pace(language: str):
    for text in sentences(language, 20, seed=1):
        samples, rate = synthesise(text, language)
        # A letter that espeak-ng does not know is spelt out in a foreign language, which takes seconds.
        assert 0.8 < len(samples) / rate < 3.5, text


def test_a_voice_or_a_language_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"no voice 'nobody', only .*f1.*m3"):
        synthesise("Так", "be", "nobody")
    with pytest.raises(ValueError, match=r"does not speak the language of 'xx\+m3'"):
        synthesise("Так", "xx", "m3")


def test_a_missing_espeak_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ModuleNotFoundError, match="pip install espeakng-loader"):
        synthesise("Так", "be")


def test_a_corpus_that_is_there_is_kept_and_another_in_its_place_refused(tmp_path: Path):
    sizes = {"train": 4, "validation": 1, "test": 1, "processes": 1}
    assert write_corpus(tmp_path / "be", **sizes)
    before = digests(tmp_path)
    assert not write_corpus(tmp_path / "be", **sizes)
    with pytest.raises(ValueError, match="is there already"):
        write_corpus(tmp_path / "be", **sizes, seed=1)
    assert digests(tmp_path) == before


def test_an_interrupted_write_leaves_nothing_under_the_final_name(tmp_path: Path):
    def interrupted(aside: Path) -> None:
        (aside / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_once(tmp_path / "out", "made.json", {}, interrupted)
    assert list(tmp_path.iterdir()) == []


def test_datasets_sees_an_audio_column(spoken: Path):
    from datasets import Audio, load_dataset

    test = load_dataset("parquet", data_files=str(spoken / "test" / "*.parquet"), split="train", streaming=True)
    assert isinstance(test.features["audio"], Audio)
    row = next(iter(test.cast_column("audio", Audio(decode=False))))
    assert soundfile.info(io.BytesIO(row["audio"]["bytes"])).duration < WINDOW_SECONDS


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--out"),
        (["--out", "x", "--train", "0"], "--train"),
        (["--out", "x", "--language", "xx"], "--language"),
        (["--out", "x", "--language", "sv", "--train", "9999999"], "10,000,299"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert told in error
    assert list(tmp_path.iterdir()) == []
