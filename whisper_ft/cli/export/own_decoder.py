"""Own decoding of a check: the tokens of the model before the export, and its logits where an engine differs."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.cli.export.engines.engine_job import Floats, JobClip
from whisper_ft.data.labels.timestamp_tokens import timestamp_ids
from whisper_ft.decoding.greedy import GreedyDecoder


class OwnDecoder:
    """Greedy decoding by the model itself in float32, one clip after another, as the engines do it.

    Parameters
        model: the model in evaluation mode, on its device.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        generation = model.generation_config
        self._model, self._tokenizer = model, tokenizer
        self.limit: int = model.config.max_target_positions // 2
        """Largest number of tokens after the prompt."""
        self.end: int = tokenizer.eos_token_id
        self.timestamps = timestamp_ids(model, tokenizer)
        self.suppressed: list[int] = [*(generation.suppress_tokens or ()), *self.timestamps]
        """Ids that are never written. Ids beyond the vocabulary, which a generation config may name, are left out."""
        self.suppressed = sorted({number for number in self.suppressed if number < model.config.vocab_size})
        self.suppressed_at_begin: list[int] = list(generation.begin_suppress_tokens or ())
        self._greedy = GreedyDecoder(model, self.suppressed, self.suppressed_at_begin)

    @torch.inference_mode()
    def transcribe(self, clips: Sequence[JobClip]) -> tuple[list[list[int]], float]:
        """Return the tokens of each clip without prompt and end, and the seconds that all of them took."""
        begin = time.perf_counter()
        rows = [
            self._greedy(self._greedy.encode(self._features(clip)), clip.prompt, self.limit, self.end)[0].tokens
            for clip in clips
        ]
        return rows, time.perf_counter() - begin

    @torch.inference_mode()
    def logits(self, clip: JobClip, tokens: Sequence[int]) -> Floats:
        """Return the logits [n + 1, V] after the prompt and after each token, -inf for those that are never written."""
        path = torch.tensor([[*clip.prompt, *tokens]], device=self._model.device)
        found = self._model(self._features(clip), decoder_input_ids=path).logits[0, len(clip.prompt) - 1 :].float()
        found[:, self.suppressed] = float("-inf")
        found[0, self.suppressed_at_begin] = float("-inf")
        logits: Floats = found.cpu().numpy()
        return logits

    @torch.inference_mode()
    def language_logits(self, clip: JobClip) -> dict[str, float]:
        """Return the logit of each language code after the start token; none for an English-only model."""
        languages = getattr(self._model.generation_config, "lang_to_id", None) or {}
        start = torch.tensor([[self._model.generation_config.decoder_start_token_id]], device=self._model.device)
        logits = self._model(self._features(clip), decoder_input_ids=start).logits[0, -1].float().tolist()
        return {token.strip("<|>"): logits[number] for token, number in languages.items()}

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, as evaluate.py writes it."""
        return str(self._tokenizer.decode([*tokens], skip_special_tokens=True)).strip()

    def token_text(self, token: int) -> str:
        """Return the text of one token, with special tokens written out."""
        return str(self._tokenizer.decode([token]))

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens of a text, with the leading space that Whisper writes."""
        return list(self._tokenizer.encode(f" {text}", add_special_tokens=False))

    def _features(self, clip: JobClip) -> torch.Tensor:  # [1, M, T]
        return torch.from_numpy(np.ascontiguousarray(clip.features))[None].to(self._model.device)
