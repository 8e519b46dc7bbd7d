"""Error counts and alignments of a reference and a hypothesis."""

import random

from whisper_ft.scoring.edit_distance import ErrorCount, align, count_errors

ALPHABET = ["a", "b", "ab", "ba", "раз'яднаць", "é", "שלום", "2", "ў", "😀"]


def random_pairs(count: int) -> list[tuple[str, str]]:
    dice = random.Random(20)
    pairs = []
    for _ in range(count):
        ref = dice.choices(ALPHABET, k=dice.randint(1, 12))
        hyp = [dice.choice(ALPHABET) if dice.random() < 0.2 else word for word in ref if dice.random() > 0.1]
        hyp += dice.choices(ALPHABET, k=dice.choice([0, 0, 0, 1, 6]))
        pairs.append((" ".join(ref), " ".join(hyp)))
    return pairs


def test_the_counts_of_a_known_pair():
    counts = count_errors(list("abcdefg"), list("axcefgh"))  # b became x, d is missing, h is new
    assert counts == ErrorCount(hits=5, substitutions=1, deletions=1, insertions=1)
    assert (counts.errors, counts.reference_length, counts.rate) == (3, 7, 3 / 7)


def test_a_count_without_a_reference_has_no_rate_but_adds_up():
    silence = ErrorCount(insertions=2)
    assert silence.rate is None
    assert (silence + ErrorCount(hits=4)).rate == 0.5


def test_the_alignment_shows_exactly_the_errors_that_were_counted():
    for ref, hyp in random_pairs(200):
        pairs = align(ref.split(), hyp.split())
        assert [left for left, _ in pairs if left] == ref.split()
        assert [right for _, right in pairs if right] == hyp.split()
        assert sum(left != right for left, right in pairs) == count_errors(ref.split(), hyp.split()).errors
