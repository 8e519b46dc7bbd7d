"""Import: models of faster-whisper and whisper.cpp come back with the weights and tokens that they left with."""

import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, environment, kill_while_it_writes, made_once
from tests.openai_tokenizer import ENGLISH, MULTILINGUAL, V3, Checkpoint, Vocabulary, byte_pairs, needs_openai
from tests.test_export import files_of_at_most
from whisper_ft.__main__ import main as command
from whisper_ft.cli.import_model import main
from whisper_ft.models.conversion.byte_level import VocabularyError, bytes_of, merges, text_of
from whisper_ft.models.conversion.foreign_model import Architecture
from whisper_ft.models.conversion.ggml_model import read_ggml_model
from whisper_ft.models.conversion.openai_sizes import ALIGNMENT_HEADS, NAMES, alignment_heads, size_of
from whisper_ft.models.export import ggml
from whisper_ft.models.whisper import LoadedWhisper, load_whisper
from whisper_ft.runtime.errors import UsageError

pytestmark = needs_openai

NARROW: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "heads": 2}
TEXTS = ("the cat, and 1984 don't", " the  two  spaces", "naïve сям'я العربية 日本語", "<|be|> <|0.02|>", "♪ (hm) --")


def model_folder(shared: Path, vocabulary: Vocabulary) -> Path:
    name = f"narrow-{vocabulary.languages}-{vocabulary.is_multilingual}"
    bins = 128 if vocabulary is V3 else 80
    return made_once(shared / name, lambda folder: Checkpoint(vocabulary, mel_bins=bins, **NARROW).write(folder))


@pytest.fixture(scope="session")
def narrow(shared: Path) -> Path:
    """A Whisper with the multilingual vocabulary."""
    return model_folder(shared, MULTILINGUAL)


@pytest.fixture(scope="session")
def loaded(narrow: Path) -> LoadedWhisper:
    return load_whisper(str(narrow))


@pytest.fixture(scope="session")
def small_ggml(shared: Path, micro_whisper: Path) -> Path:
    """Ggml files of a model with few tokens, which whisper.cpp would not take: a folder for each number format."""

    def make(top: Path) -> None:
        for kind in ggml.KINDS:
            (top / kind).mkdir(parents=True)
            ggml.write(load_whisper(str(micro_whisper)), top / kind, kind)

    return made_once(shared / "small-ggml", make)


@pytest.fixture(scope="session")
def ggml_file(shared: Path, loaded: LoadedWhisper) -> Path:
    """File of whisper.cpp with the multilingual vocabulary, in float16."""

    def make(folder: Path) -> None:
        folder.mkdir()
        ggml.write(loaded, folder, "float16")

    return made_once(shared / "ggml", make) / ggml.FILE


def to_ctranslate2(model: Path, out: Path, kind: str) -> Path:
    """Convert as the documentation of faster-whisper says."""
    converters = pytest.importorskip("ctranslate2.converters")
    converters.TransformersConverter(str(model), copy_files=["tokenizer.json"]).convert(str(out), quantization=kind)
    return out


CT2_KINDS = ("float32", "float16", "bfloat16", "int8", "int8_float16", "int16")


@pytest.fixture(scope="session")
def small_ct2(shared: Path, micro_whisper: Path) -> Path:
    """Folders of CTranslate2 of a model with few tokens, one for each number format."""

    def make(top: Path) -> None:
        for kind in CT2_KINDS:
            to_ctranslate2(micro_whisper, top / kind, kind)

    return made_once(shared / "small-ct2", make)


@pytest.fixture(scope="session")
def ct2_folder(shared: Path, narrow: Path) -> Path:
    """Folder of faster-whisper with the multilingual vocabulary, in float16."""
    return made_once(shared / "ct2", lambda folder: to_ctranslate2(narrow, folder, "float16"))


def tensors(model: LoadedWhisper) -> dict[str, torch.Tensor]:
    return dict(model.model.state_dict())


def assert_same_tokens(ours: LoadedWhisper, theirs: LoadedWhisper) -> None:
    """The same ids for any text, and the same settings of decoding."""
    for text in TEXTS:
        both = (model.processor.tokenizer.encode(text, add_special_tokens=False) for model in (ours, theirs))
        assert len({*map(tuple, both)}) == 1
    assert ours.processor.tokenizer.get_vocab() == theirs.processor.tokenizer.get_vocab()
    assert ours.processor.tokenizer.all_special_ids == theirs.processor.tokenizer.all_special_ids


# --- round trips ---


@pytest.mark.parametrize("kind", ["float32", "float16", "q8_0", "q5_0"])
def test_tensors_come_back_from_ggml_in_the_stored_type(micro_whisper: Path, small_ggml: Path, kind: str):
    model = read_ggml_model(small_ggml / kind / ggml.FILE)
    levels = {"q5_0": 16, "q8_0": 127}.get(kind)
    assert bool(model.notes) == bool(levels)
    for name, tensor in tensors(load_whisper(str(micro_whisper))).items():
        if name == "proj_out.weight":
            continue
        back = model.tensor(name)
        if tensor.ndim == 1 or "embed_positions" in name or kind == "float32":
            assert torch.equal(back, tensor), name
        elif levels and tensor.ndim == 2:
            rows = tensor.reshape(-1, 32)
            error = (back.reshape(-1, 32) - rows).abs().amax(1)
            assert torch.all(error <= 1.01 * rows.abs().amax(1) / levels), name
        else:
            assert torch.equal(back, tensor.half().float()), name


@pytest.mark.long
@pytest.mark.parametrize("kind", CT2_KINDS)
def test_a_model_that_went_to_ctranslate2_and_back_has_its_tensors_in_the_stored_type(
    micro_whisper: Path, small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    assert main([str(small_ct2 / kind), "--out", str(tmp_path / "back")]) == 0
    assert ("quantised" in capsys.readouterr().out) == ("int" in kind)
    back, original = load_whisper(str(tmp_path / "back")), load_whisper(str(micro_whisper))
    for name, tensor in tensors(original).items():
        if "int" not in kind:
            assert torch.equal(tensors(back)[name], tensor.to(getattr(torch, kind)).float()), name
        elif tensor.ndim > 1:
            largest = tensor.abs().max() if kind == "int16" else tensor.flatten(1).abs().amax(1)[:, None]
            error = (tensors(back)[name] - tensor).abs().flatten(1)
            assert torch.all(error <= largest / (2**10 if kind == "int16" else 127) * 0.51 + 1e-3), name
    assert json.loads((tmp_path / "back/config.json").read_text())["dtype"] == (
        "float16" if kind == "float16" else "float32"
    )
    assert_same_tokens(back, original)
    assert_same_generation(back, original, "alignment_heads", "lang_to_id", "task_to_id")


def assert_same_generation(ours: LoadedWhisper, theirs: LoadedWhisper, *more: str) -> None:
    told, expected = ours.model.generation_config.to_dict(), theirs.model.generation_config.to_dict()
    compared = ("suppress_tokens", "begin_suppress_tokens", "is_multilingual", "no_timestamps_token_id", *more)
    for field in compared:
        assert (told.get(field) or None) == (expected.get(field) or None), field


@pytest.mark.long
def test_a_ggml_file_becomes_a_model_with_openai_s_tokens_and_names_their_origin(
    loaded: LoadedWhisper, ggml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A ggml file has the bytes of the tokens alone: merges, special tokens and lists are OpenAI's."""
    assert main([str(ggml_file), "--out", str(tmp_path / "back")]) == 0
    told = capsys.readouterr().out
    for part in ("special tokens", "merges", "suppressed tokens", "alignment heads"):
        assert f"not stated by the file: {part}" in told
        assert part in (tmp_path / "back/README.md").read_text()
    back = load_whisper(str(tmp_path / "back"))
    assert_same_tokens(back, loaded)
    assert_same_generation(back, loaded, "lang_to_id", "task_to_id")
    embeddings = "model.decoder.embed_tokens.weight"
    assert torch.equal(tensors(back)[embeddings], tensors(loaded)[embeddings].half().float())


@pytest.mark.matrix
@pytest.mark.parametrize("vocabulary", [ENGLISH, V3], ids=["English", "100 languages"])
def test_the_other_vocabularies_come_back_from_ggml(shared: Path, tmp_path: Path, vocabulary: Vocabulary):
    original = load_whisper(str(model_folder(shared, vocabulary)))
    ggml.write(original, tmp_path, "float16")
    assert main([str(tmp_path / ggml.FILE), "--out", str(tmp_path / "back")]) == 0
    back = load_whisper(str(tmp_path / "back"))
    assert_same_tokens(back, original)
    assert_same_generation(back, original)
    assert back.model.config.num_mel_bins == original.model.config.num_mel_bins


# --- vocabulary ---


@pytest.mark.long
@pytest.mark.parametrize("vocabulary", ["multilingual", "gpt2"])
def test_all_merges_are_rebuilt_from_the_vocabulary(vocabulary: str):
    ids, pairs = byte_pairs(vocabulary)
    tokens = [bytes_of(text) for text, _ in sorted(ids.items(), key=lambda item: item[1])]
    assert [(text_of(left), text_of(right)) for left, right in merges(tokens)] == pairs


def test_a_vocabulary_that_no_merges_make_is_refused():
    alphabet = [bytes([byte]) for byte in range(256)]
    assert merges([*alphabet, b"ab", b"abc"]) == [(b"a", b"b"), (b"ab", b"c")]
    for tokens in ([*alphabet, b"abc"], alphabet[1:], [*alphabet, b"ab", b"ab"]):
        with pytest.raises(VocabularyError):
            merges(tokens)


@pytest.mark.long
def test_the_merge_that_copies_in_circulation_lack_is_put_back(
    loaded: LoadedWhisper, ct2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(ct2_folder, tmp_path / "copy")
    tokenizer = json.loads((tmp_path / "copy/tokenizer.json").read_text())
    tokenizer["model"]["merges"] = [pair for pair in tokenizer["model"]["merges"] if pair not in ("Ġ t", ["Ġ", "t"])]
    (tmp_path / "copy/tokenizer.json").write_text(json.dumps(tokenizer))
    assert main([str(tmp_path / "copy"), "--out", str(tmp_path / "back")]) == 0
    assert "lacks 1 of" in capsys.readouterr().out
    assert_same_tokens(load_whisper(str(tmp_path / "back")), loaded)


def test_sizes_of_openai_are_known_with_their_alignment_heads():
    def architecture(layers: int, decoder_layers: int, width: int, vocabulary: int) -> Architecture:
        return Architecture(vocabulary, width, 80, 1500, 448, layers, decoder_layers, 8, 8, 4 * width, 4 * width)

    assert size_of(architecture(6, 6, 512, 51_865)) == "base"
    assert size_of(architecture(4, 4, 384, 51_864)) == "tiny.en"
    assert size_of(architecture(32, 4, 1280, 51_866)) == "large-v3-turbo"
    assert size_of(architecture(32, 32, 1280, 51_866)) == "large-v3"
    assert size_of(architecture(6, 6, 512, 51_900)) is None
    assert alignment_heads("base") == [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]
    assert {*ALIGNMENT_HEADS} == {*NAMES.values()}


# --- refusals ---


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which an import ends at exit code 2, and nothing is left behind."""
    out = Path(arguments[arguments.index("--out") + 1])
    before = sorted(path.name for path in out.parent.iterdir())
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return told


@pytest.mark.long
def test_files_of_other_kinds_are_refused_with_the_way_out(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def told(name: Path) -> str:
        return refused([str(name), "--out", str(tmp_path / "out")], capsys)

    torch.save({"a": 1}, tmp_path / "model.pt")
    torch.save({"a": 1}, tmp_path / "pytorch_model.bin")
    torch.save({"a": 1}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("model.pt", "pytorch_model.bin", "old.bin"):
        assert "pickle" in told(tmp_path / name)
    assert "--model.name" in told(narrow)
    assert "hf download" in told(Path("Systran/faster-whisper-base"))
    (tmp_path / "empty").mkdir()
    assert "model.bin" in told(tmp_path / "empty")
    for number, part in enumerate(("ggml-a.bin", "ggml-b.bin")):
        (tmp_path / "empty" / part).write_bytes(b"lmgg")
        assert ("holds 2 ggml files" if number else "ends inside the header") in told(tmp_path / "empty")
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", 6))
    assert str(tmp_path) in told(tmp_path / "model.bin")
    for content in (b"", b"lm", b"GGUF" + b"\0" * 100):
        (tmp_path / "file").write_bytes(content)
        assert "expected a folder of CTranslate2" in told(tmp_path / "file")


def test_an_existing_folder_is_kept_unless_overwritten(
    small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [str(small_ct2 / "float32"), "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    refused(arguments, capsys)
    refused([*arguments, "--overwrite"], capsys)
    (tmp_path / "out/mine").unlink()
    assert main([*arguments, "--overwrite"]) == 0
    assert main([*arguments, "--overwrite"]) == 0
    refused(arguments, capsys)


def test_the_command_has_the_name_of_a_keyword(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command(["import", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    ended = subprocess.run(
        [sys.executable, "-m", "whisper_ft.import", "--help"], cwd=ROOT, env=environment(1), capture_output=True
    )
    assert ended.returncode == 0


# --- damaged and hostile files ---


class Walk:
    """The places of all numbers in the headers of a file, as (offset, bytes), found by another reader than ours."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0
        self.fields: list[tuple[int, int]] = []

    def number(self, layout: str) -> int:
        size = struct.calcsize(f"<{layout}")
        (value,) = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.fields.append((self.at, size))
        self.at += size
        return int(value)

    def skip(self, count: int) -> None:
        self.at += count

    def ggml(self) -> list[tuple[int, int]]:
        for _ in range(12):
            self.number("I")
        self.skip(4 * self.number("i") * self.number("i"))
        for n in range(self.number("i")):
            known = len(self.fields)
            self.skip(self.number("I"))
            if 3 < n < 50_000:
                del self.fields[known:]
        while self.at < len(self.content):
            rank, length, kind = (self.number("i") for _ in range(3))
            count = 1
            for _ in range(rank):
                count *= self.number("i")
            self.skip(length + {0: 4 * count, 1: 2 * count, 6: count * 22 // 32}[kind])
        return self.fields

    def model_bin(self) -> list[tuple[int, int]]:
        self.number("I")
        self.skip(self.number("H"))
        self.number("I")
        for _ in range(self.number("I")):
            self.skip(self.number("H"))
            for _ in range(self.number("B")):
                self.number("I")
            self.number("B")
            self.skip(self.number("I"))
        for _ in range(2 * self.number("I")):
            self.skip(self.number("H"))
        assert self.at == len(self.content)
        return self.fields


def damaged(content: bytes, fields: list[tuple[int, int]], data: st.DataObject) -> bytes:
    """The file cut at a number in a header or inside of it, or with an extreme number there."""
    start, size = data.draw(st.sampled_from(fields))
    if data.draw(st.booleans()):
        return content[: start + data.draw(st.integers(0, size - 1))]
    value = data.draw(st.sampled_from([b"\0" * size, b"\xff" * size, b"\xff" * (size - 1) + b"\x7f", b"\x01" * size]))
    return content[:start] + value + content[start + size :]


@pytest.mark.long
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_ggml_file_damaged_in_a_header_is_read_or_refused(data: st.DataObject, small_ggml: Path, tmp_path: Path):
    content = (small_ggml / "q5_0" / ggml.FILE).read_bytes()
    (tmp_path / "model").write_bytes(damaged(content, Walk(content).ggml(), data))
    with suppress(UsageError):  # a number of heads may be changed without effect on the reader
        read_ggml_model(tmp_path / "model")


@pytest.mark.long
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_model_bin_damaged_in_a_header_ends_in_one_line(
    data: st.DataObject, small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A number may be changed without effect, as that of the revision; else the import ends with code 2 and a line."""
    shutil.copytree(small_ct2 / "int8", tmp_path / "model", dirs_exist_ok=True)
    content = (small_ct2 / "int8/model.bin").read_bytes()
    (tmp_path / "model/model.bin").write_bytes(damaged(content, Walk(content).model_bin(), data))
    code = main([str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) in ((0, 0), (2, 1)), told
    assert (tmp_path / "out").exists() == (code == 0)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocabulary.json", "[1, 2]"),
        ("vocabulary.json", '["a", "b"]'),
        ("vocabulary.json", "{" * 100_000),
        ("vocabulary.json", None),
        ("config.json", "[]"),
        ("config.json", '{"alignment_heads": [["a"]]}'),
        ("config.json", '{"suppress_ids": [99999999]}'),
    ],
)
def test_a_damaged_json_file_beside_the_weights_is_refused(
    small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str | None
):
    shutil.copytree(small_ct2 / "float16", tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    if content is not None:
        (tmp_path / "model" / file).write_text(content)
    refused([str(tmp_path / "model"), "--out", str(tmp_path / "out")], capsys)


def test_a_stated_size_takes_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tensor = struct.pack("<3i2i", 2, 1, 0, 2**31 - 1, 2**31 - 1) + b"a"
    header = struct.pack("<I11i2i", 0x67676D6C, *[51_865, 1500, 32, 2, 1, 448, 32, 2, 1, 80, 0], 80, 201)
    vocabulary = bytes(80 * 201 * 4) + struct.pack("<iI", 1, 1) + b"a"
    (tmp_path / "model").write_bytes(header + vocabulary + tensor)
    tracemalloc.start()
    assert "more bytes are stated" in refused([str(tmp_path / "model"), "--out", str(tmp_path / "out")], capsys)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_weights_that_are_not_finite_are_refused(small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(small_ct2 / "float32", tmp_path / "model")
    content = (tmp_path / "model/model.bin").read_bytes()
    start = content.index(name := b"decoder/embeddings/weight\0") + len(name) + 1 + 2 * 4 + 1 + 4
    content = content[:start] + struct.pack("<f", float("nan")) + content[start + 4 :]
    (tmp_path / "model/model.bin").write_bytes(content)
    assert "not finite" in refused([str(tmp_path / "model"), "--out", str(tmp_path / "out")], capsys)


# --- disk and signals ---


def test_a_full_disk_ends_with_code_6_and_leaves_nothing(
    small_ct2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with files_of_at_most(100_000):
        assert main([str(small_ct2 / "float32"), "--out", str(tmp_path / "out")]) == 6
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_sigkill_leaves_nothing_under_the_name(small_ct2: Path, tmp_path: Path):
    arguments = [str(small_ct2 / "float32"), "--out", str(tmp_path / "out")]
    kill_while_it_writes("import", arguments, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
