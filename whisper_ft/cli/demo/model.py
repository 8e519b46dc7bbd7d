"""Micro Whisper that learns the demo's corpus from random weights in minutes, with a complete generation config.

`python -m whisper_ft.cli.demo.model --out DIR` writes a folder like one from the Hub, which
`WhisperProcessor.from_pretrained` and `WhisperForConditionalGeneration.from_pretrained` load. The same arguments give
the same weights.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whisper_ft.cli.demo.demo_arguments import add_count, add_out, announce, exit_code_of_demo
from whisper_ft.cli.demo.folder import write_once
from whisper_ft.cli.demo.micro_tokenizer import STEPS_PER_SECOND, micro_tokenizer, special_tokens
from whisper_ft.cli.demo.sentences import LANGUAGES
from whisper_ft.runtime.command import Parser

VERSION = 1  # raise it with each change that makes the same shape give another model
DESCRIPTION = "micro_whisper.json"


@dataclass(frozen=True)
class Shape:
    """All parameters of a micro Whisper. With the defaults it has 1.3 million weights.

    Raises ValueError unless `d_model` is even and divisible by `heads`.
    """

    language: str = "be"
    """Default language of the tokenizer, whose byte pairs are learnt from words of this language."""
    d_model: int = 128
    layers: int = 2
    """Number of layers of the encoder; the decoder has as many."""
    heads: int = 4
    window_seconds: int = 5
    mel_bins: int = 80
    max_label_tokens: int = 128
    """Number of decoder positions. The longest demo sentence, in Assamese, takes 110 bytes."""
    merges: int = 256
    """Number of byte pairs in the vocabulary; 0 for bytes alone. With 256 a word has about 3 tokens, as in Whisper for
    Belarusian."""
    init_std: float = 0.05
    """Standard deviation of the random weights.

    With Whisper's 0.02 the position embeddings outweigh the audio in such a narrow encoder. After the convolutions the
    audio then has a standard deviation of 0.015, the position embeddings 0.64. With 0.05 the audio has 0.11. After 400
    updates of 16 utterances at a peak rate of 2e-3 the WER was 72 % with 0.02 and 26 % with 0.05 (one seed)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.d_model % 2:
            raise ValueError(f"--d-model must be even and divisible by the {self.heads} heads, got {self.d_model}")


def write_micro_whisper(out: Path, shape: Shape | None = None) -> bool:
    """Write a model of a shape (None: the default one) into a new folder.

    Returns False if the folder holds the same model already. Raises ValueError if the folder holds anything else, or if
    the language has no grammar.
    """
    shape = shape or Shape()

    def write(aside: Path) -> None:
        from transformers import WhisperFeatureExtractor, WhisperProcessor

        tokenizer = micro_tokenizer(shape.language, shape.merges, shape.window_seconds, shape.max_label_tokens)
        extractor = WhisperFeatureExtractor(feature_size=shape.mel_bins, chunk_length=shape.window_seconds)
        with _no_progress_bar():
            WhisperProcessor(extractor, tokenizer).save_pretrained(aside)
            _random_model(shape, tokenizer).save_pretrained(aside)

    return write_once(out, DESCRIPTION, {"version": VERSION, **asdict(shape)}, write)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Turn off the progress bar of transformers in the block, because the model has only 5 MB."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _random_model(shape: Shape, tokenizer: Any) -> Any:
    """Build the untrained model. The caller's random state is not changed."""
    import torch
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model = WhisperForConditionalGeneration(_config(shape, tokenizer))
    # A new one, because a generation config derived from the model's config loses Whisper's fields when reloaded.
    model.generation_config = GenerationConfig(**_generation_fields(shape, tokenizer))
    return model


def _config(shape: Shape, tokenizer: Any) -> Any:
    """Build the configuration of the architecture."""
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=shape.mel_bins,
        d_model=shape.d_model,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.d_model,
        decoder_ffn_dim=4 * shape.d_model,
        max_source_positions=shape.window_seconds * STEPS_PER_SECOND,
        max_target_positions=shape.max_label_tokens,
        init_std=shape.init_std,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        begin_suppress_tokens=_never_first(tokenizer),
        **_ends(tokenizer),
    )


def _generation_fields(shape: Shape, tokenizer: Any) -> dict[str, Any]:
    """Return the fields that `generate` reads, as in the generation configs of OpenAI's checkpoints."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special_tokens()}
    tasks = ("translate", "transcribe")
    languages = list(ids)[2 : list(ids).index("<|translate|>")]  # after <|endoftext|>, <|startoftranscript|>
    return {
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "is_multilingual": True,
        "lang_to_id": {token: ids[token] for token in languages},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in tasks},
        "begin_suppress_tokens": _never_first(tokenizer),
        "max_length": shape.max_label_tokens,  # without it generation stops after 20 tokens
        "max_initial_timestamp_index": STEPS_PER_SECOND,
        "return_timestamps": False,
        # For word timestamps. In a model of two layers the last layer aligns.
        "alignment_heads": [[shape.layers - 1, head] for head in range(shape.heads)],
        **_ends(tokenizer),
    }


def _ends(tokenizer: Any) -> dict[str, int]:
    """Return the ids of begin, end and padding, which are the same token in Whisper."""
    end_of_text: int = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text}


def _never_first(tokenizer: Any) -> list[int]:
    """Return the tokens with which Whisper lets no transcript begin: a lone space and the end of the text."""
    return [tokenizer.convert_tokens_to_ids("Ġ"), tokenizer.convert_tokens_to_ids("<|endoftext|>")]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the model that the command line describes, and return the exit code."""

    def program() -> None:
        parser = Parser(
            prog="python -m whisper_ft.cli.demo.model",
            description="Write an untrained micro Whisper with its processor.",
        )
        add_out(parser, "folder to write")
        parser.add_argument("--language", choices=LANGUAGES, default="be", help="language of the speech (default be)")
        add_count(parser, "--d-model", Shape.d_model, "width")
        add_count(parser, "--layers", Shape.layers, "layers of the encoder, and of the decoder")
        add_count(parser, "--heads", Shape.heads, "attention heads")
        add_count(parser, "--window-seconds", Shape.window_seconds, "length of a window in seconds")
        add_count(parser, "--mel-bins", Shape.mel_bins, "mel bins")
        add_count(parser, "--max-label-tokens", Shape.max_label_tokens, "decoder positions")
        add_count(parser, "--merges", Shape.merges, "byte pairs in the vocabulary", least=0)
        add_count(parser, "--seed", Shape.seed, "seed of the weights", least=0)
        options = vars(parser.parse_args(argv))
        out = options.pop("out")
        announce("model", out, write_micro_whisper(out, Shape(**options)))

    return exit_code_of_demo(program)


if __name__ == "__main__":
    sys.exit(main())
