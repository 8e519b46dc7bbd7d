"""The doctor finds planted problems, reports them from a real process, and finds none in healthy data."""

import io
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from collator import SpeechCollator
from normalizers import get_normalizer
from tests.conftest import ROOT, START_SECONDS, environment, run
from tests.elsewhere import serve
from whisper_ft.cli.doctor.__main__ import main
from whisper_ft.cli.doctor.blocks import BatchRow, Finding, NumberTable, Sound, block_lines
from whisper_ft.cli.doctor.data_check import Depth, check_data
from whisper_ft.cli.doctor.data_report import DataReport, leakage_section
from whisper_ft.cli.doctor.histogram import Histogram, histogram, quantiles
from whisper_ft.cli.doctor.levels import Levels
from whisper_ft.cli.doctor.listening import Listening
from whisper_ft.cli.doctor.report_page import write_page
from whisper_ft.cli.doctor.row_check import RowStatistics
from whisper_ft.cli.doctor.spelling import shown, suspicions
from whisper_ft.cli.doctor.tally import Tally
from whisper_ft.cli.doctor.verdict import blocking_reasons, warnings_of
from whisper_ft.cli.replay.step_rows import replay
from whisper_ft.config.evaluation import HELD_OUT
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import LeakageComparison, keys_of
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.types import Row
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.models.whisper import load_parts

MIXED = "добрa"  # the last letter is Latin


def flac(samples: Any) -> dict[str, Any]:
    written = io.BytesIO()
    soundfile.write(written, samples, 16_000, format="FLAC")
    return {"bytes": written.getvalue(), "path": None}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def sick(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 rows: eight healthy ones, then ten with one problem each."""
    healthy = rows_of(corpus / "train")[:8]
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 16_000)
    spoken = healthy[0] | {"audio": flac(noise)}
    planted = [
        spoken | {"sentence": " "},
        spoken | {"sentence": "бітае", "audio": {"bytes": b"not audio", "path": None}},
        spoken | {"sentence": "доўгае", "audio": flac(np.tile(noise, 7))},
        spoken | {"sentence": "слова " * 150, "audio": flac(noise / 2)},
        spoken | {"sentence": "ціха", "audio": flac(noise * 0)},
        spoken | {"sentence": "другі раз", "audio": healthy[1]["audio"]},
        spoken | {"sentence": healthy[2]["sentence"].upper(), "audio": flac(noise / 3)},
        spoken | {"sentence": MIXED, "audio": flac(noise / 4)},
        spoken | {"sentence": "раз\u200bдва 7", "audio": flac(noise / 5)},
        rows_of(corpus / "validation")[0],
    ]
    folder = tmp_path_factory.mktemp("sick")
    schema = pq.read_schema(next((corpus / "train").glob("*.parquet")))
    pq.write_table(pa.Table.from_pylist(healthy + planted, schema), folder / "sick.parquet", row_group_size=5)
    return folder


def settings(model: Path, train: Path, corpus: Path) -> list[str]:
    return [
        *("--model.name", str(model), "--data.path", str(train), "--data.language", "be"),
        *("--eval.path", str(corpus / "validation"), "--batch.size", "4", "--steps", "9"),
    ]


@pytest.fixture(scope="module")
def report(micro_whisper: Path, sick: Path, corpus: Path) -> DataReport:
    return check(load_config(TrainingConfig, settings(micro_whisper, sick, corpus)), None, "full")


@pytest.mark.parametrize(
    ("finding", "row"),
    [
        ("unusable rows (empty_label): 1 of 18,", 8),
        ("unusable rows (decode_error): 1 of 18,", 9),
        ("unusable rows (too_long): 1 of 18,", 10),
        ("unusable rows (label_too_long): 1 of 18,", 11),
        ("unusable rows (silent): 1 of 18,", 12),
        ("rows with the audio of an earlier row: 1, such as sick.parquet#13 = sick.parquet#1", 13),
        ("transcripts with a word of mixed scripts: 1,", 15),
        ("transcripts with a zero-width character: 1,", 16),
        ("held-out rows that are also training rows (audio): 1,", 17),
        ("held-out rows that are also training rows (pcm): 1,", 17),
    ],
)
def test_a_planted_problem_is_found_with_its_row(report: DataReport, finding: str, row: int):
    assert [line for line in report.problems if line.startswith(finding) and f"sick.parquet#{row}" in line]


def test_no_other_problem_is_found(report: DataReport):
    assert len(report.problems) == 10


def check(
    config: TrainingConfig, max_rows: int | None, leakage: Depth, rewrite: LabelNormalizer | None = None
) -> DataReport:
    return check_data(config, max_rows, leakage, lambda *_: None, SpeechCollator, rewrite)


def bars(report: DataReport, title: str) -> Histogram:
    block = report.sections[title][0]
    assert isinstance(block, Histogram)
    return block


def test_levels_are_counted():
    """One sine each: healthy, healthy at full scale, clipped, with a DC offset, and nearly silent."""
    sine = np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
    clips = {
        "good": 0.3 * sine,
        "full": sine,
        "clipped": np.clip(1.5 * sine, -1, 1),
        "turned down": np.clip(sine, -0.7, 0.7),
        "offset": 0.3 * sine + 0.05,
        "quiet": 0.001 * sine,
    }
    levels = Levels()
    for name, samples in clips.items():
        levels.add(name, samples)
    tallies = (levels.clipped, levels.offset, levels.quiet)
    assert [[name for name, _ in tally.examples] for tally in tallies] == [
        ["clipped", "turned down"],
        ["offset"],
        ["quiet"],
    ]
    assert levels.peaks == {10: 1, 0: 2, 3: 1, 9: 1, 59: 1} | {10: 1}


def test_the_report_has_a_level_for_each_row_that_is_heard_and_a_reason_for_integers_as_floats(
    micro_whisper: Path, corpus: Path, tmp_path: Path
):
    for name, scale in (("a", 2**15), ("b", 1)):
        samples = scale * np.random.default_rng(0).uniform(-0.3, 0.3, 16_000)
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "так"}\n{"audio": "b.wav", "text": "не"}\n')
    checked = check(load_config(TrainingConfig, settings(micro_whisper, tmp_path / "m.jsonl", corpus)), None, "none")
    assert [line for line in checked.problems if "not_normalised" in line and "a.wav" in line and "9,830" in line]
    assert sum(bars(checked, "levels").rows) == 1
    assert checked.text("levels")[-3:] == ["clipped: 0", "with a DC offset: 0", "nearly silent: 0"]


def test_figures_add_up(report: DataReport):
    assert "18 utterances" in report.text("data")
    assert "in 13 utterances" in report.text("data")[2]
    assert report.figures["Unusable"] == "5 (27.78%)"
    durations = bars(report, "durations")
    assert sum(durations.rows) == 17  # all but the one that is no audio
    assert (durations.labels[-1], durations.rows[-1]) == ("5 +", 1)  # 7 s
    assert sum(bars(report, "label tokens").rows) == 16  # not the empty and the endless one


def test_the_same_text_by_another_voice_is_counted_but_is_no_problem(report: DataReport):
    assert "rows with the text of an earlier row: 1" in report.text("duplicates")
    assert "transcripts: digits: 1" in report.text("alphabet")


def test_steps_and_epochs_are_converted_into_each_other(report: DataReport):
    assert report.text("order") == [
        "one source",
        "an epoch is 4.5 steps of 4 utterances",
        "the run is 9 steps, which is 2.00 epochs",
    ]


def test_the_batch_shows_prompt_text_and_mask(micro_whisper: Path, corpus: Path):
    config = load_config(TrainingConfig, settings(micro_whisper, corpus / "train", corpus))
    lines = check(config, 4, "none").text("one batch")
    length = int(lines[0].split("padded to ")[1].split()[0])
    texts = {row["sentence"] for row in rows_of(corpus / "train")}
    windows = [{line.split()[0]: line.split()[1:] for line in lines[i + 1 : i + 6]} for i in (1, 7, 13)]
    for window in windows:
        assert " ".join(window["text"]) in texts
        assert [token.split("=")[0] for token in window["prompt"]] == [
            "<|startoftranscript|>", "<|be|>", "<|transcribe|>", "<|notimestamps|>",
        ]  # fmt: skip
        reads, predicts = (window[name] for name in ("reads", "predicts"))
        counted = length - predicts.count("-100")
        assert len(reads) == len(predicts) == length
        assert [token.split("=")[1] for token in window["prompt"]] == reads[:4]
        assert reads[1:counted] == predicts[: counted - 1]  # predicts what it reads next
        assert window["mask"][0] == str(counted)


def test_the_batch_shown_is_what_the_collator_makes(micro_whisper: Path, corpus: Path):
    config = load_config(TrainingConfig, settings(micro_whisper, corpus / "train", corpus))
    shown_rows = [row for row in check(config, 4, "none").sections["one batch"] if not isinstance(row, str)]
    model, source = load_parts(str(micro_whisper)), open_mixture(config.data)
    encode = LabelEncoder.of(model, model.processor.tokenizer, "be", "transcribe")
    order = source.order(seed=config.seed, lanes=default_lanes(4), window=config.data.window_chunks)
    reader = WindowReader(source, LogMel(model.processor.feature_extractor), encode, cached_chunks=1)
    windows: Any = reader.windows([order.locate(position) for position in range(3)])
    batch = SpeechCollator(encode.start, model.processor.tokenizer.pad_token_id, (80, 500))(windows)
    for number, window in enumerate(shown_rows):
        assert isinstance(window, BatchRow)
        assert window.ids == batch.utterances[number]
        assert window.shape == batch.input_features[number].shape
        assert [place.read[1] for place in window.positions] == batch.decoder_input_ids[number].tolist()
        labels = [place.label for place in window.positions]
        assert labels == batch.labels[number].tolist()


def test_labels_that_a_run_rewrites_are_rewritten_or_reported_as_written(micro_whisper: Path, corpus: Path):
    arguments = [*settings(micro_whisper, corpus / "train", corpus), "--data.normalizer", "lower"]
    config, note = (
        load_config(TrainingConfig, arguments),
        "of the transcripts as written; a run applies data.normalizer lower",
    )
    as_written = check(config, 10, "none")
    assert note in as_written.text("label tokens")
    assert note in as_written.text("one batch")
    rewritten = check(config, 10, "none", LabelNormalizer("lower", get_normalizer))
    assert note not in rewritten.text("one batch")
    texts = [one.text for one in rewritten.sections["one batch"] if isinstance(one, BatchRow)]
    assert texts == [text.lower() for text in texts] != []


@pytest.mark.long
def test_a_mix_shows_the_share_and_the_epochs_of_each_source(micro_whisper: Path, sick: Path, corpus: Path):
    mix = f"[{{path: {corpus / 'train'}, weight: 3}}, {{path: {sick}, weight: 1, language: be}}]"
    arguments = ["--model.name", str(micro_whisper), "--data.language", "be", "--data.sources", mix]
    config = load_config(TrainingConfig, [*arguments, "--batch.size", "8", "--steps", "24"])
    report = check(config, None, "fast")
    assert "118 utterances" in report.text("data")
    assert "no held-out set" in report.text("leakage")[0]
    table = report.sections["order"][0]
    assert isinstance(table, NumberTable)
    drawn = Counter(str(line["id"]).split("/")[0] for step in range(24) for line in replay(config, step))
    assert [list(row[1:]) for row in table.rows] == [
        ["100", "75.00%", "75.00%", f"{drawn['0'] / 100:.2f}"],
        ["18", "25.00%", "25.00%", f"{drawn['1'] / 18:.2f}"],
    ]
    assert table.rows[1][-1] == "2.67"


@pytest.mark.long
def test_a_sick_set_ends_the_program_with_4_if_fail_is_given(
    micro_whisper: Path, sick: Path, corpus: Path, tmp_path: Path
):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {{name: {micro_whisper}}}\ndata: {{path: {sick}, language: be}}\n", encoding="utf-8")
    arguments = ["--config", str(config), "--eval.path", str(corpus / "validation")]
    ended = run("whisper_ft/__main__.py", "doctor", *arguments, "--out", str(tmp_path / "out"), "--fail")
    assert ended.code == 4, ended.err
    assert (ended.err.count("\n"), "9 problems" in ended.err, "--fail" in ended.err) == (1, True, True)
    assert "held-out rows that are also training rows (audio): 1," in ended.out.splitlines()[-1]
    page = ElementTree.fromstring((tmp_path / "out/doctor.html").read_text(encoding="utf-8"))
    assert len(page.findall(".//svg")) == 3
    text = "".join(page.itertext())
    assert "9 problems found" in text
    verdict = next(line for line in ended.out.splitlines() if line.startswith("blocks: "))
    assert verdict.startswith("blocks: recordings of the held-out set are in the training data; ")
    assert verdict in text, "the page agrees"


def test_a_hostile_transcript_is_only_text_on_the_page(micro_whisper: Path, corpus: Path, tmp_path: Path):
    hostile = ["<script>alert(1)</script> 7", "\x1b[31m \u202eabc </style><img src=x>", "\u05e9\u05dc\u05d5\u05dd 5"]
    rows = rows_of(corpus / "train")[: len(hostile)]
    table = pa.Table.from_pylist([row | {"sentence": text} for row, text in zip(rows, hostile, strict=True)])
    pq.write_table(table, tmp_path / "a<b>.parquet")
    config = load_config(TrainingConfig, settings(micro_whisper, tmp_path / "a<b>.parquet", corpus))
    page = write_page(tmp_path, "a<b>", check(config, None, "fast")).read_text(encoding="utf-8")
    tree = ElementTree.fromstring(page)
    assert not {"script", "img", "a", "link", "iframe"} & {element.tag for element in tree.iter()}
    assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    assert "\x1b" not in page
    assert "\u202e" not in page
    isolated = ["".join(element.itertext()) for element in tree.iter("bdi")]
    assert hostile[0] in isolated, "the first window of the batch, with nothing of it lost"
    assert "\u05e9" in isolated
    assert not any("\u05e9" in text and "parquet" in text for text in isolated), "each is isolated from its id"


def paced(*texts: str, seconds: float = 2.0, rows: int = 0) -> Listening:
    """Utterances of ten letters in two seconds, with the given texts among them."""
    listening = Listening(rows or 40 + len(texts), 16_000)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32)
    for number, text in enumerate(("добры дзень", *texts, *["добры дзень"] * 39)):
        listening.add(Row(f"row{number}", b"", text), noise)
    return listening


def test_transcripts_that_are_far_too_long_or_short_for_their_audio_are_found_and_can_be_heard():
    blocks = paced("слова " * 20, *["доўгае слова доўгае слова доўгае слова"] * 4, "так").outlier_section()
    fast, slow = [block for block in blocks if isinstance(block, Finding)]
    assert (fast.count, fast.level, fast.examples[0]) == ("5", "fair", ("row1", "50.0 characters per second"))
    assert (slow.count, slow.level) == ("0", "good")  # a short word in silence says little
    sounds = [block for block in blocks if isinstance(block, Sound)]
    assert sounds[0].title == "row1, 2.0 s, 50.0 characters per second"
    assert sounds[0].text.startswith("слова слова")
    assert sounds[0].address.startswith("data:audio/flac;base64,")
    assert len(sounds) == 3 + 1


def test_usual_data_has_no_outlier_and_its_samples_are_spread_over_it():
    listening = paced()
    assert [block.level for block in listening.outlier_section() if isinstance(block, Finding)] == ["good", "good"]
    titles = [block.title.split(",")[0] for block in listening.sample_section() if isinstance(block, Sound)]
    assert titles == ["row0", "row8", "row16", "row24", "row32"]


def test_data_without_a_usable_row_has_nothing_to_hear():
    listening = Listening(2, 16_000)
    for text in ("а", None):
        listening.add(Row("row", b"", text), None)
    assert listening.sample_section() == listening.outlier_section() == ["no usable utterance"]


def test_equal_names_of_files_alone_are_no_warning():
    def row(name: str, text: str) -> Row:
        return Row(name, name.encode(), text)

    comparison = LeakageComparison([row("test/1.wav", "адзін"), row("test/2.wav", "два")])
    for one in (row("train/1.wav", "тры"), row("train/2.wav", "чатыры")):
        comparison.add(one, keys_of(one))
    sections = {"leakage": leakage_section({HELD_OUT: comparison.result()}, is_compared=True)}
    assert any(
        "the same file name, but other words: 2 held-out rows" in line for line in block_lines(sections["leakage"])
    )
    assert warnings_of(sections) == []


@pytest.mark.parametrize(
    ("unusable", "limit", "blocks"), [(30, 0.01, True), (19, 0.01, False), (30, 0.5, False), (100, 1.0, True)]
)
def test_unusable_rows_block_where_a_run_would_stop(unusable: int, limit: float, blocks: bool):
    config = load_config(TrainingConfig, ["--data.max_unusable_share", str(limit)])
    statistics = RowStatistics(rows=100, unusable={"silent": Tally(unusable)})
    assert bool(blocking_reasons(statistics, None, config)) == blocks


@pytest.mark.long
@pytest.mark.parametrize("moment", ["while it starts", pytest.param("while it reads", marks=pytest.mark.matrix)])
def test_ctrl_c_ends_it_in_one_line(micro_whisper: Path, corpus: Path, tmp_path: Path, moment: str):
    shutil.copy(next((corpus / "train").glob("*.parquet")), tmp_path / "train.parquet")
    with serve(tmp_path) as elsewhere:
        arguments = ["--model.name", str(micro_whisper), "--data.language", "be", "--leakage", "none"]
        arguments += ["--data.path", f"{elsewhere.address}/files/train.parquet"]
        started = subprocess.Popen(
            [sys.executable, "-m", "whisper_ft.doctor", *arguments],
            cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not (elsewhere.sent if moment == "while it reads" else "torch" in maps(started.pid)):
            assert started.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=START_SECONDS)
    assert (started.returncode, err) == (130, "stopped\n")


def maps(pid: int) -> str:
    """The files that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_healthy_data_is_left_alone(micro_whisper: Path, corpus: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [*settings(micro_whisper, corpus / "train", corpus), "--max_rows", "20", "--fail"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "no problems found"
    assert out.splitlines()[-2].startswith("nothing blocks; ")
    assert "20 utterances (the first of 100;" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--leakage", "some"], "--leakage: invalid choice: 'some'"),
        (["--max_rows", "few"], "--max_rows: invalid int value: 'few'"),
        (["--max_rows", "0"], "--max_rows must be at least 1, got 0"),
        (["--data.path", "no/such/place"], "there is no such file or folder"),
        (["--data.pathh", "x"], "did you mean 'data.path'?"),
        (["--config", "nowhere.yaml"], "there is no such file"),
    ],
)
def test_arguments_that_cannot_work_are_refused_in_one_line(arguments, message, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("дзень дoбры", {"word of mixed scripts"}),  # a Latin o
        ("добры дзень, DVD-дыск", set()),
        ("добры дзень і DVD", set()),
        ("сузор’е", set()),
        ("日本語のテキスト", set()),
        ("क\u094d\u200dष", set()),  # a joiner that belongs to the spelling
        ("дом\u200dік", {"zero-width character"}),
        ("\ufeffдобры", {"zero-width character"}),
        ("раз\x00два", {"control character"}),
        ("раз\ttwo", {"control character"}),
        ("раз \ufffd", {"replacement character"}),
        ("у 1991 годзе", {"digits"}),
        ("и\u0306", {"not in the normal form NFC"}),
    ],
)
def test_a_suspicious_spelling_is_named(text: str, expected: set[str]):
    assert {what for what, _ in suspicions(text)} == expected


def test_nothing_that_a_terminal_obeys_or_hides_is_shown():
    assert shown("a\x1b[31m\u202e\ud800\n") == "a\\u001b[31m\\u202e\\ud800\\u000a"
    assert shown("x" * 100, 10) == "x" * 10 + "…"


def test_a_histogram_holds_each_value_once_also_beyond_its_top():
    values = Counter({0: 1, 19: 2, 20: 4, 300: 1, 99_999: 1})  # tenths of a second; the window has 30 s
    result = histogram("seconds", values, 0.1, 30.0)
    assert list(zip(result.labels, result.rows, strict=True))[:2] == [("0 - 2", 3), ("2 - 4", 4)]
    assert (result.labels[-1], result.rows[-1]) == ("30 +", 2)
    assert len(result.lines()) == 1 + len(result.rows)
    assert quantiles(Counter({1: 50, 2: 49, 9: 1}), 1) == "minimum 1, median 2, 95th percentile 2, maximum 9"
    assert quantiles(Counter(), 1) == "no rows"
    assert histogram("seconds", Counter(), 0.1, 30.0).rows == [0]


@pytest.mark.parametrize("most", [5, 30, 448])
def test_bars_are_as_wide_as_the_data_needs(most: int):
    for last in range(1, 600):
        result = histogram("label tokens", Counter({last: 1, 0: 2}), 1, most)
        assert sum(result.rows) == 3
        assert len(result.rows) <= 21
        assert result.edges[-1] <= most
        assert result.rows[-1] == (3 if len(result.rows) == 1 else 1)
