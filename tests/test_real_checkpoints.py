"""Checkpoints as the Hub has them, with OpenAI's real vocabularies: OpenAI's tokens, prompts and log-mel.

Only the weights are random. See tests/openai_tokenizer.py for what is rebuilt and from what.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor, pipeline
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from tests.conftest import Trainer, metrics, run
from tests.openai_tokenizer import END, ENGLISH, MULTILINGUAL, V3, Checkpoint, Vocabulary, needs_openai, put, reference
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.setting import LeadingSpace
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.tokens import LabelEncoder, refuse_all_but_english
from whisper_ft.data.types import Row
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import ModelParts, load_parts, load_whisper, parameters_by_name
from whisper_ft.runtime.errors import UsageError

pytestmark = needs_openai

NARROW: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "heads": 2}
TINY = Checkpoint(stored=torch.float16)  # its real dimensions: 37.8 million weights, 75 MB in float16
KINDS = {
    "multilingual": Checkpoint(MULTILINGUAL, **NARROW),
    "English": Checkpoint(ENGLISH, **NARROW),
    "large-v3": Checkpoint(V3, mel_bins=128, stored=torch.float16, **NARROW),
    # As distil-large-v3 has it: a multilingual vocabulary, and the only language that it was taught.
    "distil": Checkpoint(V3, mel_bins=128, stored=torch.float16, generation={"language": "<|en|>"}, **NARROW),
}


def kind_with(vocabulary: Vocabulary) -> str:
    return next(name for name, kind in KINDS.items() if kind.vocabulary is vocabulary)


VOCABULARIES = {"99 languages": MULTILINGUAL, "100 languages": V3, "English": ENGLISH}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder of each kind."""
    top = tmp_path_factory.mktemp("checkpoints")
    made = {name: kind.write(top / name) for name, kind in KINDS.items()}
    yield made
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def parts(folders: dict[str, Path]) -> dict[str, ModelParts]:
    """The parts of each folder besides the weights."""
    return {name: load_parts(str(folder)) for name, folder in folders.items()}


# --- the vocabulary ---


@pytest.fixture(scope="module", params=("multilingual", "English", "large-v3"))
def tokenizers(request: pytest.FixtureRequest, parts: dict[str, ModelParts]) -> tuple[LabelEncoder, Any, Any]:
    """Our labels, the tokenizer beneath them, and OpenAI's."""
    loaded = parts[request.param]
    tokenizer = loaded.processor.tokenizer
    encode = LabelEncoder.of(loaded, tokenizer, "en", "transcribe")
    return encode, tokenizer, KINDS[request.param].vocabulary.theirs


TEXTS = [
    ", ".join(TO_LANGUAGE_CODE).title(),
    "Беларуская, русский, українська, български, қазақ, монгол, српски, Ελληνικά, Հայերեն, ქართული",
    "עברית, ייִדיש, العربية, فارسی, اردو, پښتو, سنڌي, አማርኛ, हिन्दी, मराठी, नेपाली, संस्कृतम्, ਪੰਜਾਬੀ, ગુજરાતી",
    "বাংলা, অসমীয়া, தமிழ், తెలుగు, ಕನ್ನಡ, മലയാളം, සිංහල, ไทย, ລາວ, မြန်မာ, ខ្មែរ, བོད་ཡིག, 中文, 粵語, 日本語, 한국어",
    "Čeština, Türkçe, Tiếng Việt, Íslenska, Føroyskt, Yorùbá, ʻŌlelo Hawaiʻi, Māori, Malti, Latviešu, Azərbaycan",
    "Раз’яднаць сям'ю, 'ўсё' — гэта 12,50 € ці №5?",
    "Räksmörgås på ön: EU:s mål, à la carte",
    "অসমীয়া ভাষা, ক্ষমা কৰিব৷ ১২৩",
    "日本語のテキスト、「猫」。ﾊﾝｶｸ",
    "ภาษาไทยไม่มีช่องว่าง ๑๒๓",
    "اَلسَّلَامُ عَلَيْكُمْ، ١٢٣",
    "👩‍👩‍👧‍👦 🇧🇾 ☺️ 👍🏽",
    "e\u0301 и\u0306 ё ё \u0301",
    "I'm we've they'll he'd DON'T it’s 'tis rock'n'roll",
    "do n't , it 's . what ?",  # what `clean_up_tokenization_spaces` of the files would draw together
    "  two  spaces\tand\ta tab\nnew line\r\n\u00a0\u2003\u200b wide ",
    "<|be|> <|endoftext|> <|0.02|> <|notimestamps|> <|nocaptions|>",
    "♪♪ [MUSIC] (laughs) >> -- {x}",
    "\x00\x1f\u2028\ufeff\U0010ffff",
    "a" * 200,
    "12345678901234567890 ½ ² Ⅷ",
]


def with_leading_space(theirs: Any, text: str) -> list[int]:
    """OpenAI's tokens of a text with the space that its models write, where a token begins with it."""
    spaced = theirs.encode(f" {text.strip()}", disallowed_special=())
    bare = theirs.encode(" ")
    return list(theirs.encode(text.strip(), disallowed_special=()) if spaced[:1] == bare else spaced)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].encode("unicode_escape").decode())
def test_a_transcript_has_openais_tokens_and_comes_back_from_them(tokenizers: tuple[LabelEncoder, Any, Any], text: str):
    encode, tokenizer, theirs = tokenizers
    expected = with_leading_space(theirs, text)
    assert encode(text)[len(encode.prompt()) : -1] == expected
    assert encode(text)[-1] == theirs.eot
    # Of the backend: Whisper's own decode takes what looks like a timestamp out of the finished text.
    assert tokenizer.backend_tokenizer.decode(expected, skip_special_tokens=True).removeprefix(" ") == text.strip()
    if "<|" not in text:
        assert tokenizer.decode(encode(text), skip_special_tokens=True).removeprefix(" ") == text.strip()


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "begins_with_a_space"),
    [
        ("Printing", True),
        ("прывітанне", True),
        ("שלום", True),
        ("안녕", True),
        ("(a", True),
        ("12", True),
        ("日本語", False),
        ("বাংলা", False),
        ("తెలుగు", False),
        ("Ինչ", False),
        ("ภาษา", False),
    ],
)
def test_a_leading_space_is_written_where_whisper_writes_one(
    parts: dict[str, ModelParts], text: str, begins_with_a_space: bool
):
    """Such as where the first token would be the bare space, which generation may not write first, there is none."""
    model = parts["multilingual"]
    bare = model.processor.tokenizer.encode(" ", add_special_tokens=False)[0]
    assert bare in model.generation_config.begin_suppress_tokens

    def first(leading_space: LeadingSpace) -> str:
        encode = LabelEncoder.of(model, model.processor.tokenizer, "be", "transcribe", leading_space=leading_space)
        return str(model.processor.tokenizer.decode(encode(text), skip_special_tokens=True))

    assert first("never") == text
    assert first("always") == f" {text}"
    assert first("auto") == (f" {text}" if begins_with_a_space else text)


@pytest.mark.long
@given(text=st.text(max_size=40))
def test_any_text_has_openais_tokens(tokenizers: tuple[LabelEncoder, Any, Any], text: str):
    encode, _, theirs = tokenizers
    if text.strip():
        assert encode(text)[len(encode.prompt()) : -1] == with_leading_space(theirs, text)


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_the_rebuilt_vocabulary_is_openais_to_the_last_token(parts: dict[str, ModelParts], vocabulary: Vocabulary):
    theirs = vocabulary.theirs
    ours = parts[kind_with(vocabulary)].processor.tokenizer
    assert len(ours) == theirs.encoding.n_vocab
    for token, number in theirs.special_tokens.items():
        hub = token if vocabulary is V3 else token.replace("nospeech", "nocaptions")
        assert ours.convert_tokens_to_ids(hub) == number, token


def without_space_t(tokenizer: dict[str, Any]) -> None:
    """As in copies of 2023 that are in circulation."""
    tokenizer["model"]["merges"].remove(["Ġ", "t"])


def without_a_rare_merge(tokenizer: dict[str, Any]) -> None:
    del tokenizer["model"]["merges"][-1]


def with_merges_in_reverse(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["merges"].reverse()


def with_two_ids_exchanged(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["Ġdon"], vocabulary["Ġwe"] = vocabulary["Ġwe"], vocabulary["Ġdon"]


DEFECTS = (without_space_t, without_a_rare_merge, with_merges_in_reverse, with_two_ids_exchanged)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["multilingual", pytest.param("English", marks=pytest.mark.matrix)])
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_tokenizer_that_makes_other_tokens_than_openais_is_refused(
    tmp_path: Path, folders: dict[str, Path], kind: str, defect: Callable[[dict[str, Any]], None]
):
    shutil.copytree(folders[kind], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    defect(tokenizer)
    put(tmp_path / "tokenizer.json", tokenizer)
    with pytest.raises(UsageError) as refused:
        load_parts(str(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path}: its tokenizer ")
    assert "\n" not in str(refused.value)


@pytest.mark.long
def test_merges_that_the_old_files_lack_are_missed_too(tmp_path: Path, folders: dict[str, Path]):
    old = as_saved_until_2023(tmp_path / "old", folders["multilingual"])
    merges = (old / "merges.txt").read_text(encoding="utf-8")
    (old / "merges.txt").write_text(merges.replace("\nĠ t\n", "\n"), encoding="utf-8")
    ended = run("evaluate.py", "--model", str(old), "--data.path", str(old), "--out", str(tmp_path / "out"))
    assert ended.code == 2
    assert "merges" in ended.err


# --- what stands before a transcript ---


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_prompts_are_openais_in_every_language_and_task(folders: dict[str, Path], vocabulary: Vocabulary):
    model, processor = load_whisper(str(folders[kind_with(vocabulary)]))
    encode = LabelEncoder.of(model, processor.tokenizer, "en", "transcribe")
    settings = DecodingConfig(prompt="Мінск, Гомель")
    plain, timed = (
        Transcriber(model, processor.tokenizer, encode, each, "fp32")
        for each in (settings, DecodingConfig(prompt=settings.prompt, timestamps=True))
    )
    get = reference("tokenizer").get_tokenizer
    for code in vocabulary.theirs.all_language_codes:
        for task in ("transcribe", "translate"):
            theirs = get(vocabulary.is_multilingual, num_languages=vocabulary.languages, language=code, task=task)
            context = [theirs.sot_prev, *theirs.encode(f" {settings.prompt}")]
            window = AudioWindow(0, Row("a", b"", "", language=code, task=task), torch.empty(0), 1.0)
            assert encode.prompt(code, task) == [*theirs.sot_sequence_including_notimestamps]
            assert plain.prompt(window) == [*context, *theirs.sot_sequence_including_notimestamps]
            assert timed.prompt(window) == [*context, *theirs.sot_sequence]


def test_every_language_is_known_by_openais_code_and_names():
    theirs = reference("tokenizer")
    for name, code in (theirs.TO_LANGUAGE_CODE | {code: code for code in theirs.LANGUAGES}).items():
        assert whisper_language(name) == whisper_language(name.title()) == code
    assert len(theirs.LANGUAGES) == 100


def test_cantonese_is_a_language_of_large_v3_alone(parts: dict[str, ModelParts]):
    newer, older = parts["large-v3"], parts["multilingual"]
    assert LabelEncoder.of(newer, newer.processor.tokenizer, "yue", "transcribe").prompt()[1] == 50358
    with pytest.raises(UsageError, match=r"yue.*zh"):
        LabelEncoder.of(older, older.processor.tokenizer, "yue-HK", "transcribe")


def test_of_an_english_model_nothing_else_is_asked(parts: dict[str, ModelParts]):
    for language, task in (("be", "transcribe"), (None, "translate")):
        refuse_all_but_english(parts["multilingual"], language, task)
        with pytest.raises(UsageError, match=language or task):
            refuse_all_but_english(parts["English"], language, task)
    refuse_all_but_english(parts["English"], "English", "transcribe")


# --- what the model hears ---

SECOND = 16_000
CLIPS = {
    "noise": np.random.default_rng(0).normal(size=5 * SECOND) * 0.1,
    "faint": np.random.default_rng(1).normal(size=2 * SECOND) * 1e-5,
    "tone": np.sin(2 * np.pi * 440 * np.arange(3 * SECOND) / SECOND),
    "click": np.eye(1, SECOND, 8000)[0],
    "silence": np.zeros(SECOND),
    "odd": np.random.default_rng(2).normal(size=12_345),
    "window": np.random.default_rng(3).normal(size=30 * SECOND) * 0.1,
    "over": np.random.default_rng(4).normal(size=31 * SECOND) * np.linspace(1, 0, 31 * SECOND),
}


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_the_log_mel_is_openais_padded_and_cut_alike(bins: int, clip: np.ndarray):
    """To two units in the last place: the filters of transformers and those of librosa differ by less than one."""
    theirs, samples = reference("audio"), clip.astype(np.float32)
    ours = pad_windows([LogMel(WhisperFeatureExtractor(feature_size=bins))(samples)], 3000)[0]
    expected = theirs.log_mel_spectrogram(theirs.pad_or_trim(samples), bins)
    assert ours.shape == expected.shape == (bins, 3000)
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-7)  # values reach 2: their unit is 1.2e-7 to 2.4e-7


# --- the files of the Hub ---


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_the_hub_needs_no_repair_and_is_trained_in_float32(folders: dict[str, Path], kind: str):
    repairs: list[str] = []
    model, processor = load_whisper(str(folders[kind]), on_repair=repairs.append)
    assert repairs == []
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    stored = load_file(folders[kind] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {KINDS[kind].stored}
    for name, parameter in parameters_by_name(model).items():
        assert torch.equal(parameter, stored[name].float()), name
    assert processor.feature_extractor.feature_size == KINDS[kind].mel_bins == model.config.num_mel_bins


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_hub_says_of_decoding_is_kept_but_for_forced_tokens(
    tmp_path: Path, folders: dict[str, Path], kind: str
):
    stated = json.loads((folders[kind] / "generation_config.json").read_text())
    assert stated.pop("forced_decoder_ids")
    del stated["transformers_version"]
    model, processor = load_whisper(str(folders[kind]))
    export(model, config_files(model, processor), tmp_path, "")
    exported = json.loads((tmp_path / "generation_config.json").read_text())
    assert stated.items() <= exported.items()
    assert exported.keys() - stated.keys() == {"do_sample", "transformers_version"}
    assert "forced_decoder_ids" not in json.loads((tmp_path / "config.json").read_text())
    assert LabelEncoder.of(model, processor.tokenizer, None if kind == "distil" else "en", "transcribe").language


@pytest.mark.long
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("multilingual", marks=pytest.mark.matrix),
        pytest.param("English", marks=pytest.mark.matrix),
        "large-v3",
    ],
)
def test_an_export_has_the_side_files_of_the_hub_and_the_same_tokenizer(
    tmp_path: Path, folders: dict[str, Path], kind: str
):
    """Transformers 5 writes none of them, and whisper.cpp, faster-whisper and transformers.js read them."""
    model, processor = load_whisper(str(folders[kind]))
    export(model, config_files(model, processor), tmp_path / "out", "")
    for name in ("vocab.json", "added_tokens.json", "preprocessor_config.json"):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (tmp_path / "out", folders[kind]))
        if name == "added_tokens.json":
            assert ours.pop(END) == theirs.get(END, processor.tokenizer.eos_token_id)
        elif name == "vocab.json":
            ours = {END: processor.tokenizer.eos_token_id} | ours
        assert theirs.items() <= ours.items() | {("processor_class", "WhisperProcessor")}, name
        assert list(ours.values()) == list(theirs.values()) or name != "added_tokens.json"
    assert (tmp_path / "out/merges.txt").read_text() == (folders[kind] / "merges.txt").read_text()
    for loaded in (load_whisper(str(tmp_path / "out")).processor, WhisperProcessor.from_pretrained(tmp_path / "out")):
        backends = (each.tokenizer.backend_tokenizer for each in (loaded, processor))
        assert len({backend.to_str() for backend in backends}) == 1
        assert loaded.tokenizer.special_tokens_map == processor.tokenizer.special_tokens_map
        assert loaded.tokenizer.all_special_ids == processor.tokenizer.all_special_ids
        assert loaded.feature_extractor.to_dict() == processor.feature_extractor.to_dict()


def spoken(seconds: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=seconds * SECOND) * 0.1).astype(np.float32)


@pytest.mark.long
def test_transformers_decodes_an_export_in_its_language_and_task(tmp_path: Path, folders: dict[str, Path]):
    model, processor = load_whisper(str(folders["multilingual"]))
    model.generation_config.language, model.generation_config.task = "be", "translate"
    with torch.no_grad():
        for weights in model.model.decoder.parameters():
            weights.mul_(6)  # so that what it writes depends on the prompt
    export(model, config_files(model, processor), tmp_path, "")
    features = processor(spoken(), sampling_rate=SECOND, return_tensors="pt").input_features
    exported = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    written = exported.generate(features, max_new_tokens=2, return_dict_in_generate=True)["sequences"][0]
    theirs = reference("tokenizer").get_tokenizer(True, language="be", task="translate")
    assert written[:4].tolist() == [*theirs.sot_sequence_including_notimestamps]

    recognize = pipeline("automatic-speech-recognition", model=str(tmp_path))

    def text(**arguments: str) -> str:
        clip = {"raw": spoken(), "sampling_rate": SECOND}
        return str(recognize(clip, generate_kwargs=arguments | {"max_new_tokens": 8})["text"])

    assert text() == text(language="be", task="translate") != text(language="sv", task="transcribe")


def as_saved_until_2023(folder: Path, source: Path) -> Path:
    """Without tokenizer.json, as `processor.save_pretrained` wrote models then."""
    shutil.copytree(source, folder)
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"], config["additional_special_tokens"]
    put(folder / "tokenizer_config.json", config)
    return folder


@pytest.mark.long
def test_a_tokenizer_of_the_old_files_takes_no_transcript_for_commands(tmp_path: Path, folders: dict[str, Path]):
    """Read by transformers 5, its special tokens are ordinary ones: `<|be|>` in a transcript was one token."""
    old, repairs = as_saved_until_2023(tmp_path / "old", folders["multilingual"]), list[str]()
    model, processor = load_whisper(str(old), on_repair=repairs.append)
    assert len(repairs) == 1
    assert repairs[0].startswith(f"{old}: 106 special tokens")
    export(model, config_files(model, processor), tmp_path / "new", "")
    text = "<|be|> так <|endoftext|>"
    expected = with_leading_space(MULTILINGUAL.theirs, text)
    for folder in (old, tmp_path / "new"):
        parts = load_parts(str(folder))
        tokenizer = parts.processor.tokenizer
        assert LabelEncoder.of(parts, tokenizer, "be", "transcribe")(text)[4:-1] == expected
        assert tokenizer.decode([50258, 50330, 50359, 50363, *expected, 50257], skip_special_tokens=True) == f" {text}"
    assert load_parts(str(tmp_path / "new")).repairs == ()


@pytest.mark.long
def test_a_tokenizer_that_puts_a_space_before_a_transcript_is_heeded(tmp_path: Path, folders: dict[str, Path]):
    """As in the first models of NbAiLab, which were trained so, and which name no padding."""
    shutil.copytree(folders["multilingual"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    put(tmp_path / "tokenizer_config.json", config | {"add_prefix_space": True, "pad_token": None})
    parts = load_parts(str(tmp_path))
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "no", "transcribe")
    assert encode("Nordmenn")[4:-1] == MULTILINGUAL.theirs.encode(" Nordmenn")
    assert parts.processor.tokenizer.pad_token_id == MULTILINGUAL.theirs.eot


# --- train.py and evaluate.py ---


def trained_and_scored(train: Trainer, model: Path, language: str, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """One step of train.py on two utterances, and evaluate.py's summary of its model on two."""
    steps = {"steps": 1, "batch__size": 2, "batch__per_device": 2, "eval__every": 0, "save__every": 0}
    train.model = model
    run_dir = train("run", **steps, data__language=language, model__dropout=0, **settings)
    out = train.folder / "scored"
    arguments = ["--data.path", str(train.corpus / "test"), "--out", str(out), "--max_utterances", "2"]
    ended = run("evaluate.py", "--model", str(run_dir), *arguments, "--decoding.max_new_tokens", "4")
    assert ended.code == 0, ended.out + ended.err
    return run_dir, json.loads((out / "summary.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("kind", [pytest.param("English", marks=pytest.mark.matrix), "large-v3"])
def test_a_model_of_the_hub_is_trained_and_scored(train: Trainer, folders: dict[str, Path], kind: str):
    language = "en" if kind == "English" else "be"
    run_dir, summary = trained_and_scored(train, folders[kind], language)
    assert summary["utterances"] == 2
    assert 9 < metrics(run_dir)[1]["loss"] < 13  # of 51,865 tokens, none likelier than another: ln 51,865 is 10.9
    config = json.loads((run_dir / "final/generation_config.json").read_text())
    expected = (None, None) if kind == "English" else ("be", "transcribe")
    assert (config.get("language"), config.get("task")) == expected
    assert WhisperForConditionalGeneration.from_pretrained(run_dir / "final").dtype == torch.float32


@pytest.mark.matrix
def test_a_step_with_the_real_dimensions_of_tiny(train: Trainer):
    folder = TINY.write(train.folder / "whisper-tiny")
    run_dir, summary = trained_and_scored(train, folder, "be-BY")
    assert summary["utterances"] == 2
    weights = load_file(run_dir / "final/model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == 37_760_640  # as openai/whisper-tiny has
    assert json.loads((run_dir / "final/generation_config.json").read_text())["language"] == "be"
    shutil.rmtree(run_dir)  # 0.6 GB
