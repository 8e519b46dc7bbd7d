import json
import math

import pytest

from normalizers import get_normalizer
from whisper_ft.scoring.hallucination import MAX_COMPRESSION_RATIO, compression_ratio, longest_run, run_checks
from whisper_ft.scoring.scores import Prediction, score
from whisper_ft.scoring.unicode_text import script_of

LOWER = get_normalizer("lower")
CHARACTERS = get_normalizer("none", "zh")
PLAIN = {
    "be": "Раз'яднаць іх было цяжка, бо снег ішоў усю ноч і дарогі замяло да самага лесу.",
    "as": "মই অসমীয়া কওঁ আৰু ঘৰত সকলোৱে এই ভাষাতে কথা পাতে, কিন্তু বিদ্যালয়ত ইংৰাজীও শিকোঁ।",
    "ta": "நான் தமிழ் பேசுகிறேன், ஆனால் என் நண்பர்கள் ஆங்கிலத்திலும் இந்தியிலும் பேசுவார்கள்.",
    "hi": "मैं हिन्दी बोलता हूँ और मेरे घर में सब लोग यही भाषा बोलते हैं, लेकिन स्कूल में अंग्रेज़ी भी है।",
    "en": "The quick brown fox jumped over the lazy dog while everyone else was looking the other way.",
    "zh": "今天天气很好我们一起去公园散步然后回家吃晚饭看电视聊天睡觉",
}


def flagged(*rows: Prediction, normalize=LOWER) -> dict[str, list[str]]:
    """Ids of the flagged rows by check, for checks that flag any."""
    by_check = {
        check.name: [item.row.prediction.id for item in check.flagged] for check in run_checks(score(rows, normalize))
    }
    return {name: ids for name, ids in by_check.items() if ids}


def prediction(name: str, ref: str, hyp: str, seconds: float = 10.0, **more) -> Prediction:
    return Prediction(name, ref, hyp, seconds, 20, **more)


@pytest.mark.parametrize("language", PLAIN)
def test_plain_text_of_any_script_is_not_flagged_and_a_loop_of_it_is(language: str):
    text = PLAIN[language]
    normalize = CHARACTERS if language == "zh" else LOWER
    plain = [prediction(f"plain{n}", text, text, language=language) for n in range(3)]
    assert flagged(*plain, normalize=normalize) == {}
    part = text[: len(text) // 3].strip() if language != "zh" else text[:10]
    looped = prediction("looped", text, " ".join([part] * 8) if language != "zh" else part * 8, 40.0, language=language)
    assert flagged(*plain, looped, normalize=normalize) == {"loops": ["looped"]}


@pytest.mark.parametrize("language", PLAIN)
def test_the_compression_ratio_depends_on_letters_and_not_on_their_bytes(language: str):
    text = PLAIN[language]
    assert compression_ratio(text) < 1.6 < MAX_COMPRESSION_RATIO < compression_ratio(text * 6)
    shifted = text.translate({ord(sign): 0x10300 + code for code, sign in enumerate(dict.fromkeys(text))})
    assert compression_ratio(shifted) == compression_ratio(text)


def test_the_longest_run_is_of_the_shortest_n_gram_within_the_span():
    assert longest_run(["a", "b", "c"], 6) == (1, ["a"])
    assert longest_run(["x", "no", "no", "no", "no", "y"], 6) == (4, ["no"])
    assert longest_run(["x", "thank", "you", "thank", "you", "thank", "you", "thank"], 6) == (3, ["thank", "you"])
    assert longest_run(["a", "b", "c", "d", "a", "b", "c", "d"], 3) == (1, ["a"])
    assert longest_run([], 6) == (0, [])


def test_a_repetition_in_the_reference_is_no_loop():
    assert flagged(prediction("a", "no no no no", "no no no no")) == {}
    assert flagged(prediction("a", "no", "no no no no"), prediction("b", "no no", "no no no")) == {"loops": ["a"]}


def test_a_loop_of_sentences_is_flagged_unless_the_reference_repeats_too():
    refrain = " ".join(["the quick brown fox jumped over the lazy dog again"] * 6)  # longer than the span of n-grams
    assert flagged(prediction("sung", refrain, refrain), prediction("looped", "the quick brown fox", refrain)) == {
        "loops": ["looped"]
    }


def test_words_on_an_empty_reference_are_flagged_and_silence_is_not():
    result = flagged(
        prediction("a", "", "thank you"), prediction("b", "", ""), prediction("c", "x y z u v", "x y z u v")
    )
    assert result == {"words_on_empty_references": ["a"]}


def test_a_transcript_faster_than_any_speech_is_flagged():
    plain = [prediction(f"p{n}", PLAIN["en"], PLAIN["en"], 6.0) for n in range(200)]
    long = prediction("long", "one two", PLAIN["en"], 2.0)
    unknown = prediction("unknown", "one two", PLAIN["en"], math.nan)
    # Cut too short: nobody can say the reference either, so it is neither flagged nor part of the quantile.
    cut = prediction("cut", PLAIN["en"], PLAIN["en"], 0.5)
    assert flagged(*plain, long, unknown, cut) == {"over_long": ["long"]}


def test_another_script_is_flagged_but_a_foreign_name_is_not():
    rows = [prediction(f"be{n}", PLAIN["be"], PLAIN["be"], language="be") for n in range(3)]
    rows += [prediction(f"en{n}", PLAIN["en"], PLAIN["en"], language="en") for n in range(3)]
    latin = prediction("latin", PLAIN["be"], "Thank you for watching", language="be")
    name = prediction("name", PLAIN["be"], "Раз'яднаць Windows было цяжка, бо снег ішоў", language="be")
    quoted = prediction("quoted", "OK Google", "OK Google", language="be")
    assert flagged(*rows, latin, name, quoted) == {"wrong_script": ["latin"]}
    serbian = [prediction("lat", "dobar dan", "dobar dan"), prediction("cyr", "добар дан", "dobar dan")]
    assert flagged(*serbian) == {}  # a language may use two scripts


def test_only_letters_have_a_script():
    scripts = [script_of(sign) for sign in "aйअகาあ漢カ한ש1 ,́"]
    assert scripts[:5] == ["LATIN", "CYRILLIC", "DEVANAGARI", "TAMIL", "THAI"]
    assert scripts[5:8] == ["CJK"] * 3
    assert scripts[8:] == ["HANGUL", "HEBREW", None, None, None, None]


def test_a_transcript_at_the_token_limit_is_flagged():
    assert flagged(prediction("a", "x", "x", hit_token_limit=True), prediction("b", "x", "x")) == {"token_limit": ["a"]}


def test_every_check_is_in_the_summary_with_its_rule_and_utterances():
    checks = run_checks(score([prediction("a", "", "thank you", hit_token_limit=True)], LOWER))
    summary = {check.name: check.summary() for check in checks}
    assert list(summary) == ["loops", "words_on_empty_references", "over_long", "wrong_script", "token_limit"]
    assert [entry["utterances"] for entry in summary.values()] == [0, 1, 0, 0, 1]
    assert summary["token_limit"]["ids"] == ["a"]
    assert all(entry["rule"] for entry in summary.values())
    json.dumps(summary)
    assert [check.flagged for check in run_checks(score([], LOWER))] == [()] * 5
