"""The batch: one start token in front, labels one position ahead, padding that trains nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collator import SpeechCollator
from whisper_ft.data.audio.log_mel import pad_windows
from whisper_ft.data.types import IGNORE, Batch, Window

START, END, PAD = 1000, 2000, 2000  # Whisper pads with <|endoftext|>, so PAD is END


def window(tokens: list[int], features: torch.Tensor, first_target: int = 1) -> Window:
    return Window(features, tokens, ("u",), first_target=first_target)


def collate(*sequences: list[int]) -> Batch:
    windows = [window(tokens, torch.full((4, 6), float(i))) for i, tokens in enumerate(sequences)]
    return SpeechCollator(START, PAD, (4, 6))(windows)


texts = st.lists(st.integers(0, 999), min_size=0, max_size=12)


@given(st.lists(texts, min_size=1, max_size=5))
def test_the_decoder_reads_exactly_one_start_token_and_it_is_first(sequences: list[list[int]]):
    batch = collate(*([START, *tokens, END] for tokens in sequences))
    assert (batch.decoder_input_ids[:, 0] == START).all()
    assert ((batch.decoder_input_ids == START).sum(dim=1) == 1).all()
    assert not (batch.labels == START).any()


@given(st.lists(texts, min_size=1, max_size=5))
def test_each_label_is_the_next_input_and_the_last_one_is_the_end(sequences: list[list[int]]):
    batch = collate(*([START, *tokens, END] for tokens in sequences))
    for row, tokens in enumerate(sequences):
        length = len(tokens) + 1
        assert batch.labels[row, : length - 1].tolist() == batch.decoder_input_ids[row, 1:length].tolist() == tokens
        assert batch.labels[row, length - 1] == END, "the end token is learned although padding looks the same"
        assert (batch.labels[row, length:] == IGNORE).all()
        assert (batch.decoder_input_ids[row, length:] == PAD).all()


def test_tokens_that_come_without_a_start_token_get_one():
    assert torch.equal(collate([5, 6, END]).decoder_input_ids, collate([START, 5, 6, END]).decoder_input_ids)


@pytest.mark.parametrize("tokens", [[START, START, 5, END], [START, 5, START, END], [START], []])
def test_a_second_start_token_or_no_label_is_refused(tokens: list[int]):
    with pytest.raises(ValueError, match="one start token"):
        collate(tokens)


def test_features_are_stacked_in_order():
    batch = collate([START, END], [START, 3, END])
    assert batch.input_features.shape == (2, 4, 6)
    assert batch.input_features[:, 0, 0].tolist() == [0.0, 1.0]
    assert batch.utterances == ("u", "u")


@pytest.mark.parametrize("frames", [1, 3, 5, 6])
def test_the_last_frame_of_a_window_stands_for_all_that_follow(frames: int):
    heard = torch.arange(4.0 * frames).view(4, frames)
    windows = [window([START, END], heard), window([START, END], torch.ones(4, 6))]
    batch = SpeechCollator(START, PAD, (4, 6))(windows)
    assert torch.equal(batch.input_features, pad_windows([heard, torch.ones(4, 6)], 6)), "as an evaluation pads it"
    assert torch.equal(batch.input_features[0, :, :frames], heard)
    assert torch.equal(batch.input_features[0, :, frames:], heard[:, -1:].expand(-1, 6 - frames))


def test_more_frames_than_the_model_hears_are_refused():
    with pytest.raises(RuntimeError, match="must match"):
        SpeechCollator(START, PAD, (4, 6))([window([START, END], torch.ones(4, 7))])


def test_a_batch_says_which_of_its_labels_are_predicted():
    batch = collate([START, END], [START, 3, END], [START, END])
    assert batch.labels.flatten()[batch.predicted].tolist() == [END, 3, END, END]
    assert not (batch.labels == IGNORE).flatten()[batch.predicted].any()
    assert len(batch.predicted) == (batch.labels != IGNORE).sum()


def test_a_batch_of_no_windows_has_the_shape_of_one_and_no_label():
    batch = SpeechCollator(START, PAD, (4, 6))([])
    assert batch.input_features.shape == (1, 4, 6)
    assert (batch.labels == IGNORE).all()
    assert len(batch.predicted) == 0
    assert batch.utterances == ()


def test_the_mask_is_the_label_that_torch_ignores():
    masked = torch.nn.functional.cross_entropy(torch.randn(1, 3), torch.tensor([IGNORE]), reduction="sum")
    assert masked == 0


def test_a_prompt_is_read_and_not_trained():
    prompt, text = [7, 8], [START, 3, 4, END]
    batch = SpeechCollator(START, PAD, (4, 6))(
        [window([*prompt, *text], torch.ones(4, 6), first_target=3), window(text, torch.ones(4, 6))]
    )
    assert batch.decoder_input_ids[0].tolist() == [7, 8, START, 3, 4]
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 3, 4, END], [3, 4, END, IGNORE, IGNORE]]


@pytest.mark.parametrize("tokens", [[7, START, 3, END], [START, 7, 3, END]])
def test_a_start_token_away_from_the_first_target_is_refused(tokens: list[int]):
    with pytest.raises(ValueError, match="one start token"):
        SpeechCollator(START, PAD, (4, 6))([window(tokens, torch.ones(4, 6), first_target=3)])
