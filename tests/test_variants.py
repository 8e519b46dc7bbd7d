import json

from normalizers import get_normalizer
from whisper_ft.scoring.normalizer_table import side_by_side
from whisper_ft.scoring.scores import Prediction, score


def test_the_same_transcripts_are_scored_under_each_normaliser_once():
    rows = [
        Prediction("a", "Мы раз'ядналі іх.", "мы раз’ядналі их", 2.0, 5),
        Prediction("b", "[смех]", "ха", 1.0, 1),
    ]
    golden, none, basic = (get_normalizer(name, language="be") for name in ("golden", "none", "whisper-basic"))
    variants = side_by_side(score(rows, golden), [none, basic, golden, none])
    assert [variant.name for variant in variants] == ["golden", "none", "whisper-basic"]
    found = {variant.name: variant for variant in variants}
    # golden: іх. whisper-basic: the same, of 4 words (раз ядналі). none: Мы, the apostrophe, іх., and [смех]
    counts = {name: (v.words.errors, v.words.reference_length, v.scored_utterances) for name, v in found.items()}
    assert counts == {"golden": (1, 3, 1), "whisper-basic": (1, 4, 1), "none": (4, 4, 2)}
    assert found["golden"].words == score(rows, golden).words
    summary = {name: variant.summary() for name, variant in found.items()}
    assert summary["none"]["fingerprint"] == none.fingerprint
    json.dumps(summary, allow_nan=False)


def test_whisper_does_not_see_a_wrong_vowel_sign_and_the_headline_does():
    rows = [Prediction("a", "मैं हिन्दी बोलता हूँ", "मैं हिन्दी बोलती हूँ", 2.0, 5)]
    golden, basic = (get_normalizer(name, language="hi") for name in ("golden", "whisper-basic"))
    assert [variant.words.rate for variant in side_by_side(score(rows, golden), [basic])] == [0.25, 0.0]
