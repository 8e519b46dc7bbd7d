"""Folders as the Hub has OpenAI's checkpoints: random weights, and the real vocabularies of PyPI's openai-whisper.

The files of one are those of `openai/whisper-tiny` and its kin, in the format that transformers 4 wrote them in.
"""

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import WhisperConfig, WhisperForConditionalGeneration

END = "<|endoftext|>"
NEVER_FIRST_SPACE = 220  # the token of a lone space, in both vocabularies

needs_openai = pytest.mark.skipif(
    not (importlib.util.find_spec("whisper") and importlib.util.find_spec("tiktoken")),
    reason="needs OpenAI's own package: pip install tiktoken, pip install --no-deps openai-whisper",
)


@cache
def reference(name: str) -> ModuleType:
    """A module of OpenAI's package as it is: `tokenizer` or `audio`.

    `import whisper` would import all of it, and with it numba and what else `--no-deps` has left out.
    """
    if "whisper" not in sys.modules:
        spec = importlib.util.find_spec("whisper")
        assert spec is not None
        sys.modules["whisper"] = importlib.util.module_from_spec(spec)  # found, not run
    return import_module(f"whisper.{name}")


@dataclass(frozen=True)
class Vocabulary:
    """One of OpenAI's three: English, with 99 languages, with 100."""

    languages: int = 99
    is_multilingual: bool = True

    @property
    def theirs(self) -> Any:
        """OpenAI's tokenizer."""
        return reference("tokenizer").get_tokenizer(self.is_multilingual, num_languages=self.languages)

    @property
    def special(self) -> list[str]:
        """Special tokens in OpenAI's order, by the names that they have on the Hub."""
        theirs = self.theirs
        ids = sorted(
            (number, token) for token, number in theirs.special_tokens.items() if number < theirs.timestamp_begin
        )
        no_speech = "<|nospeech|>" if self.languages == 100 else "<|nocaptions|>"
        return [no_speech if token == "<|nospeech|>" else token for _, token in ids]

    @property
    def times(self) -> list[str]:
        """Timestamps: in the tokenizers of the Hub, ordinary tokens that were added."""
        return [f"<|{step / 50:.2f}|>" for step in range(1501)]


ENGLISH, MULTILINGUAL, V3 = Vocabulary(is_multilingual=False), Vocabulary(), Vocabulary(languages=100)


def _sign_of_byte() -> dict[int, str]:
    """The character that stands for each byte in GPT-2's files: itself where it can be seen, else one above U+00FF."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


@cache
def byte_pairs(name: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt of an asset of OpenAI's, `multilingual` or `gpt2`.

    The asset ranks whole tokens only. A pair with a lower rank is merged earlier. So a token has the two parts that are
    left when all pairs of lower rank are merged.
    """
    ranks: dict[bytes, int] = reference("tokenizer").get_encoding(name)._mergeable_ranks
    sign = _sign_of_byte()

    def written(token: bytes) -> str:
        return "".join(sign[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _parts(token, rank, ranks)
            merges.append((written(left), written(right)))
    return {written(token): rank for token, rank in ranks.items()}, merges


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two that are merged last into a token."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(pairwise(parts))]
        lowest, i = min(found)
        assert lowest < rank, f"{token!r} is not made of two"
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    left, right = parts
    return left, right


@cache
def _backend(vocabulary: Vocabulary) -> Tokenizer:
    pairs, merges = byte_pairs("multilingual" if vocabulary.is_multilingual else "gpt2")
    tokenizer = Tokenizer(
        models.BPE(pairs | {END: len(pairs)}, merges, continuing_subword_prefix="", end_of_word_suffix="")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in vocabulary.special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vocabulary.times])
    before = ["<|startoftranscript|>", "<|notimestamps|>"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before[0]}:0 {before[1]}:0 $A:0 {END}:0",
        pair=f"{before[0]}:0 {before[1]}:0 $A:0 $B:1 {END}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (*before, END)],
    )
    return tokenizer


def write_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    """tokenizer.json, and the files beside it that were all a model had before January 2023."""
    tokenizer = _backend(vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    put(folder / "vocab.json", model["vocab"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]), encoding="utf-8")
    added = [*vocabulary.special[1:], *vocabulary.times]
    put(folder / "added_tokens.json", {token: tokenizer.token_to_id(token) for token in added})
    put(folder / "normalizer.json", {"colour": "color"})
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END)
    put(folder / "special_tokens_map.json", roles | {"additional_special_tokens": vocabulary.special})
    put(
        folder / "tokenizer_config.json",
        roles
        | {
            "add_bos_token": False,
            "add_prefix_space": False,
            "additional_special_tokens": vocabulary.special,
            "clean_up_tokenization_spaces": True,
            "errors": "replace",
            "model_max_length": 1024,
            "processor_class": "WhisperProcessor",
            "return_attention_mask": False,
            "tokenizer_class": "WhisperTokenizer",
            "added_tokens_decoder": {
                str(tokenizer.token_to_id(token)): {
                    "content": token,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": token in vocabulary.special,
                }
                for token in [END, *added]
            },
        },
    )


def put(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class Checkpoint:
    """A model of the Hub: its dimensions, and what its files say."""

    vocabulary: Vocabulary = MULTILINGUAL
    d_model: int = 384
    encoder_layers: int = 4
    decoder_layers: int = 4
    heads: int = 6
    mel_bins: int = 80
    stored: torch.dtype = torch.float32
    generation: dict[str, Any] = field(default_factory=dict)  # over what OpenAI's say; None takes a field out

    @property
    def ends(self) -> dict[str, int]:
        """Ids that both configs state; <|endoftext|> begins and pads too, but begins no English one."""
        end = self.vocabulary.theirs.eot
        begin = end if self.vocabulary.is_multilingual else end + 1
        return {"bos_token_id": begin, "decoder_start_token_id": end + 1, "eos_token_id": end, "pad_token_id": end}

    @property
    def suppressed(self) -> list[int]:
        """Tokens that generation never writes: signs that are not spoken, and special tokens."""
        theirs = self.vocabulary.theirs
        commands = (theirs.sot, theirs.translate, theirs.transcribe, theirs.sot_lm, theirs.sot_prev, theirs.no_speech)
        return sorted([*theirs.non_speech_tokens, *commands])

    def config(self) -> dict[str, Any]:
        """config.json, with the settings of decoding that were there before generation_config.json was."""
        theirs = self.vocabulary.theirs
        forced = [theirs.to_language_token("en"), theirs.transcribe] if self.vocabulary.is_multilingual else []
        return {
            "_name_or_path": "openai/whisper-tiny",
            "activation_dropout": 0.0,
            "activation_function": "gelu",
            "architectures": ["WhisperForConditionalGeneration"],
            "attention_dropout": 0.0,
            "begin_suppress_tokens": [NEVER_FIRST_SPACE, theirs.eot],
            "d_model": self.d_model,
            "decoder_attention_heads": self.heads,
            "decoder_ffn_dim": 4 * self.d_model,
            "decoder_layerdrop": 0.0,
            "decoder_layers": self.decoder_layers,
            "dropout": 0.0,
            "encoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.d_model,
            "encoder_layerdrop": 0.0,
            "encoder_layers": self.encoder_layers,
            "forced_decoder_ids": [[i, token] for i, token in enumerate([*forced, theirs.no_timestamps], 1)],
            "init_std": 0.02,
            "is_encoder_decoder": True,
            "max_length": 448,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "model_type": "whisper",
            "num_hidden_layers": self.encoder_layers,
            "num_mel_bins": self.mel_bins,
            "scale_embedding": False,
            "suppress_tokens": self.suppressed,
            "torch_dtype": str(self.stored).removeprefix("torch."),
            "transformers_version": "4.27.0.dev0",
            "use_cache": True,
            "vocab_size": theirs.encoding.n_vocab,
            **self.ends,
        }

    def generation_config(self) -> dict[str, Any]:
        """generation_config.json."""
        theirs, last = self.vocabulary.theirs, self.decoder_layers - 1
        fields: dict[str, Any] = {
            "alignment_heads": [[max(last - 1, 0), 1], [last, 0], [last, 1]],
            "begin_suppress_tokens": [NEVER_FIRST_SPACE, theirs.eot],
            "forced_decoder_ids": [[1, theirs.no_timestamps]],
            "is_multilingual": self.vocabulary.is_multilingual,
            "max_initial_timestamp_index": 50,
            "max_length": 448,
            "no_timestamps_token_id": theirs.no_timestamps,
            "prev_sot_token_id": theirs.sot_prev,
            "return_timestamps": False,
            "suppress_tokens": self.suppressed,
            "transformers_version": "4.31.0.dev0",
            **self.ends,
        }
        if self.vocabulary.is_multilingual:
            fields["forced_decoder_ids"] = [[1, None], [2, theirs.transcribe]]
            fields["lang_to_id"] = dict(zip(self.language_tokens, theirs.all_language_tokens, strict=True))
            fields["task_to_id"] = {"transcribe": theirs.transcribe, "translate": theirs.translate}
        return {key: value for key, value in (fields | self.generation).items() if value is not None}

    @property
    def language_tokens(self) -> list[str]:
        return [f"<|{code}|>" for code in self.vocabulary.theirs.all_language_codes]

    def write(self, folder: Path, seed: int = 0) -> Path:
        """All files of the model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WhisperForConditionalGeneration(WhisperConfig(**self.config()))
        model.to(self.stored).save_pretrained(folder)
        write_tokenizer(folder, self.vocabulary)
        put(folder / "config.json", self.config())
        put(folder / "generation_config.json", self.generation_config())
        put(
            folder / "preprocessor_config.json",
            {
                "chunk_length": 30,
                "feature_extractor_type": "WhisperFeatureExtractor",
                "feature_size": self.mel_bins,
                "hop_length": 160,
                "n_fft": 400,
                "n_samples": 480_000,
                "nb_max_frames": 3000,
                "padding_side": "right",
                "padding_value": 0.0,
                "processor_class": "WhisperProcessor",
                "return_attention_mask": False,
                "sampling_rate": 16_000,
            },
        )
        return folder
