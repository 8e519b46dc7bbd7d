import json

from normalizers import get_normalizer
from whisper_ft.scoring.normalizer_table import normalizer_table
from whisper_ft.scoring.scores import Prediction, score


def test_the_table_has_one_row_for_each_normaliser():
    rows = [
        Prediction("a", "Мы раз'ядналі іх.", "мы раз’ядналі их", 2.0, 5),
        Prediction("b", "[смех]", "ха", 1.0, 1),
    ]
    golden, none, basic = (get_normalizer(name, language="be") for name in ("golden", "none", "whisper-basic"))
    table = normalizer_table(score(rows, golden), [none, basic, golden, none])
    assert [row.name for row in table] == ["golden", "none", "whisper-basic"]
    by_name = {row.name: row for row in table}
    # golden: іх. whisper-basic: the same, of 4 words (раз ядналі). none: Мы, the apostrophe, іх., and [смех]
    counts = {
        name: (row.words.errors, row.words.reference_length, row.scored_utterances) for name, row in by_name.items()
    }
    assert counts == {"golden": (1, 3, 1), "whisper-basic": (1, 4, 1), "none": (4, 4, 2)}
    assert by_name["golden"].words == score(rows, golden).words
    summary = {name: row.summary() for name, row in by_name.items()}
    assert summary["none"]["fingerprint"] == none.fingerprint
    json.dumps(summary, allow_nan=False)


def test_a_wrong_vowel_sign_counts_in_golden_but_not_in_whisper_basic():
    rows = [Prediction("a", "मैं हिन्दी बोलता हूँ", "मैं हिन्दी बोलती हूँ", 2.0, 5)]
    golden, basic = (get_normalizer(name, language="hi") for name in ("golden", "whisper-basic"))
    assert [row.words.rate for row in normalizer_table(score(rows, golden), [basic])] == [0.25, 0.0]
