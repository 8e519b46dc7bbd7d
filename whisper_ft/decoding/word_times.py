"""Times of words, from the positions of the audio to which the decoder attends while it writes each token.

The method is that of openai-whisper (whisper/timing.py). Cross-attention of some heads follows the speech. Its
weights are normalised over the tokens and smoothed over time. The best monotonic path gives the time of each token.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.data.labels.timestamp_tokens import timestamp_ids
from whisper_ft.decoding.dtw import first_columns
from whisper_ft.decoding.word_tokens import words_of
from whisper_ft.runtime.errors import UsageError

SECONDS_PER_POSITION = 0.02  # of the encoder output
FILTER_POSITIONS = 7  # width of the median filter: 0.14 s, the default of openai-whisper
LONGEST_MEDIAN = 0.7  # seconds: largest median duration of a word that limits the duration of others
SENTENCE_ENDS = (*".。!！?？",)


class Word(NamedTuple):
    """A word of a transcript, with times in seconds from the start of its window."""

    text: str
    """With its punctuation and the space before it: the texts of all words in a row are the transcript."""
    start: float
    end: float
    probability: float
    """Mean probability of its tokens among all tokens of text, without punctuation at its ends."""
    phrase: int
    """Index of its phrase in the transcript; 0 without timestamps."""


class Spoken(NamedTuple):
    """Tokens of a transcript whose words are wanted."""

    prompt: list[int]
    """Tokens before the text, from the start token to <|notimestamps|>."""
    phrases: list[list[int]]
    """Tokens of the text by phrase, without timestamps; [] for silence."""
    positions: int
    """Positions of the encoder output that hold sound."""
    language: str
    """Code of the language of the text."""

    @property
    def text(self) -> list[int]:
        """Tokens of all phrases."""
        return [token for phrase in self.phrases for token in phrase]


class WordAligner:
    """Finds the times of words by a second, teacher-forced pass of the decoder, so that no transcript changes.

    The heads are the `alignment_heads` of the generation config. For a model without this field they are all heads of
    the upper half of the decoder, as in openai-whisper. Raises UsageError for heads that the model does not have.
    """

    def __init__(self, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        self._decoder, self._project, self._tokenizer = model.model.decoder, model.proj_out, tokenizer
        stated = getattr(model.generation_config, "alignment_heads", None)
        self._heads = _heads_of(model, stated)
        self.notes = [] if stated else ["the model names no alignment heads, so the times of words are less exact"]
        """Lines for the user."""
        width = getattr(model.generation_config, "median_filter_width", None) or FILTER_POSITIONS
        self._filter = width + 1 - width % 2  # odd, so that there is a middle
        special = {*tokenizer.all_special_ids, *timestamp_ids(model, tokenizer)}
        self._special = sorted(token for token in special if token < model.config.vocab_size)

    def __call__(self, states: torch.Tensor, rows: Sequence[Spoken]) -> list[list[Word]]:
        """Return the words of each row of encoder output [B, S, D], in their order."""
        special = frozenset(self._special)
        plain = [[[token for token in phrase if token not in special] for phrase in row.phrases] for row in rows]
        wanted = {index: row._replace(phrases=own) for index, (row, own) in enumerate(zip(rows, plain, strict=True))}
        wanted = {index: row for index, row in wanted.items() if row.text}
        words: list[list[Word]] = [[] for _ in rows]
        if not wanted:
            return words
        with self._cross_attention() as projections:
            hidden = self._decoder(
                input_ids=_padded([[*row.prompt, *row.text] for row in wanted.values()]).to(states.device),
                encoder_hidden_states=states[[*wanted]],
                use_cache=False,
            ).last_hidden_state
        for place, (index, row) in enumerate(wanted.items()):
            before, length = len(row.prompt) - 1, len(row.prompt) + len(row.text)
            own = {layer: (query[place, :length], keys[place]) for layer, (query, keys) in projections.items()}
            costs = -self._weights(own, row.positions)[before:]  # of the places that predict the text and the end
            times = [float(column) * SECONDS_PER_POSITION for column in first_columns(costs.cpu().double().numpy())]
            words[index] = self._words(row, times, self._probabilities(hidden[place, before : length - 1], row.text))
        return words

    @contextmanager
    def _cross_attention(self) -> Iterator[dict[int, tuple[torch.Tensor, torch.Tensor]]]:
        """Record the queries [B, L, D] and keys [B, S, D] of cross-attention, by layer, while the decoder runs.

        They are recorded where they are computed, because only `eager` attention returns its weights.
        """
        recorded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        queries: dict[int, torch.Tensor] = {}
        hooks = []
        for layer in sorted({layer for layer, _ in self._heads}):
            attention = self._decoder.layers[layer].encoder_attn

            def keep_query(module: Any, given: Any, query: torch.Tensor, layer: int = layer) -> None:
                queries[layer] = query

            def keep_keys(module: Any, given: Any, keys: torch.Tensor, layer: int = layer) -> None:
                recorded[layer] = queries[layer], keys

            hooks.append(attention.q_proj.register_forward_hook(keep_query))
            hooks.append(attention.k_proj.register_forward_hook(keep_keys))
        try:
            yield recorded
        finally:
            for hook in hooks:
                hook.remove()

    def _weights(
        self, projections: Mapping[int, tuple[torch.Tensor, torch.Tensor]], positions: int
    ) -> torch.Tensor:  # [L, positions]
        """Return how much each token attends to each position with sound: the mean over the heads."""
        total = torch.zeros(())
        for layer, head in self._heads:
            attention = self._decoder.layers[layer].encoder_attn
            own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            query, keys = (each[:, own].float() for each in projections[layer])
            weights = (query * attention.scaling @ keys[:positions].T).softmax(-1)
            deviation, mean = torch.std_mean(weights, dim=0, unbiased=False)
            normalised = (weights - mean) / deviation.clamp_min(torch.finfo(torch.float32).tiny)
            total = total.to(weights.device) + _smoothed(normalised, self._filter)
        return (total / len(self._heads)).nan_to_num()  # a model that has diverged may attend to nothing

    def _probabilities(self, hidden: torch.Tensor, tokens: Sequence[int]) -> list[float]:
        """Return the probability of each token of a text among all tokens of text, given hidden states [n, D]."""
        logits = self._project(hidden).float()
        logits[:, self._special] = float("-inf")
        chosen = torch.tensor([*tokens], device=logits.device)[:, None]
        return [float(value) for value in logits.softmax(-1).gather(-1, chosen)[:, 0]]

    def _words(self, row: Spoken, times: Sequence[float], probabilities: Sequence[float]) -> list[Word]:
        """Return the words of a row, given the time at which each token and the end begin."""
        words, first = [], 0
        for number, phrase in enumerate(row.phrases):
            for word in words_of(self._tokenizer, phrase, row.language):
                begin, end = first + word.spoken.begin, first + word.spoken.end
                mean = fmean(probabilities[begin:end])
                words.append(Word(word.whole.text, times[begin], times[end], mean, number))
            first += len(phrase)
        return _without_pauses(words)


def _heads_of(model: WhisperForConditionalGeneration, stated: Sequence[Sequence[int]] | None) -> list[tuple[int, int]]:
    """Return (layer, head) of the heads that follow the speech."""
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    if not stated:
        return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    for pair in stated:
        if len(pair) != 2 or pair[0] >= layers or pair[1] >= heads:
            raise UsageError(
                f"generation_config.json: alignment_heads has {[*pair]}, but the model has {layers} decoder layers of "
                f"{heads} heads; take alignment_heads from the model of that size, or leave them out"
            )
    return [(layer, head) for layer, head in stated]


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:  # [B, L]
    """Make a batch of tokens. No token sees the padding, which comes after it."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (length - len(row))] for row in rows])


def _smoothed(weights: torch.Tensor, width: int) -> torch.Tensor:  # [L, S] -> [L, S]
    """Replace each weight by the median of the `width` weights around it; the ends are reflected."""
    edge = width // 2
    if weights.shape[1] <= edge:
        return weights
    return F.pad(weights, (edge, edge), mode="reflect").unfold(1, width, 1).median(-1).values


def _without_pauses(words: Sequence[Word]) -> list[Word]:
    """Shorten words that contain a pause: the first word, the last one, and the first one of a sentence.

    The path gives every position to a token, so the pause before a sentence belongs to its first word. As in
    openai-whisper, such a word is at most twice as long as the median.
    """
    durations = [word.end - word.start for word in words if word.end > word.start]
    longest = 2 * min(median(durations), LONGEST_MEDIAN) if durations else 0.0
    result = []
    for number, (start, end) in enumerate((word.start, word.end) for word in words):
        if number == 0 or words[number - 1].text.rstrip().endswith(SENTENCE_ENDS):
            start = max(start, end - longest)
        elif number == len(words) - 1:
            end = min(end, start + longest)
        result.append(words[number]._replace(start=round(start, 2), end=round(end, 2)))
    return result
