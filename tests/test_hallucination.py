import json
import math

import pytest

from whisper_ft.scoring.hallucination import COMPRESSION_RATIO, compression_ratio, longest_run, run_checks
from whisper_ft.scoring.scores import Prediction, score
from whisper_ft.scoring.unicode_script import script_of

PLAIN = {
    "be": "Раз'яднаць іх было цяжка, бо снег ішоў усю ноч і дарогі замяло да самага лесу.",
    "as": "মই অসমীয়া কওঁ আৰু ঘৰত সকলোৱে এই ভাষাতে কথা পাতে, কিন্তু বিদ্যালয়ত ইংৰাজীও শিকোঁ।",
    "ta": "நான் தமிழ் பேசுகிறேன், ஆனால் என் நண்பர்கள் ஆங்கிலத்திலும் இந்தியிலும் பேசுவார்கள்.",
    "hi": "मैं हिन्दी बोलता हूँ और मेरे घर में सब लोग यही भाषा बोलते हैं, लेकिन स्कूल में अंग्रेज़ी भी है।",
    "en": "The quick brown fox jumped over the lazy dog while everyone else was looking the other way.",
    "zh": "今天天气很好我们一起去公园散步然后回家吃晚饭看电视聊天睡觉",
}


class Characters:
    unit = "characters"

    def __call__(self, text: str) -> str:
        return text


def shown(*rows: Prediction, normalize=str.lower) -> dict[str, list[str]]:
    """The ids under each sign that any row shows."""
    found = {sign.name: [s.row.prediction.id for s in sign.suspects] for sign in run_checks(score(rows, normalize))}
    return {name: ids for name, ids in found.items() if ids}


def said(name: str, ref: str, hyp: str, seconds: float = 10.0, **more) -> Prediction:
    return Prediction(name, ref, hyp, seconds, 20, **more)


@pytest.mark.parametrize("language", PLAIN)
def test_plain_text_shows_no_sign_in_any_script_and_a_loop_of_it_does(language: str):
    text = PLAIN[language]
    normalize = Characters() if language == "zh" else str.lower
    plain = [said(f"plain{n}", text, text, language=language) for n in range(3)]
    assert shown(*plain, normalize=normalize) == {}
    part = text[: len(text) // 3].strip() if language != "zh" else text[:10]
    looped = said("looped", text, " ".join([part] * 8) if language != "zh" else part * 8, 40.0, language=language)
    assert shown(*plain, looped, normalize=normalize) == {"loops": ["looped"]}


@pytest.mark.parametrize("language", PLAIN)
def test_the_compression_ratio_is_that_of_letters_and_blind_to_their_bytes(language: str):
    text = PLAIN[language]
    assert compression_ratio(text) < 1.6 < COMPRESSION_RATIO < compression_ratio(text * 6)
    shifted = text.translate({ord(sign): 0x10300 + code for code, sign in enumerate(dict.fromkeys(text))})
    assert compression_ratio(shifted) == compression_ratio(text)


def test_the_longest_run_is_of_the_shortest_n_gram_and_of_no_more_words_than_asked():
    assert longest_run(["a", "b", "c"], 6) == (1, ["a"])
    assert longest_run(["x", "no", "no", "no", "no", "y"], 6) == (4, ["no"])
    assert longest_run(["x", "thank", "you", "thank", "you", "thank", "you", "thank"], 6) == (3, ["thank", "you"])
    assert longest_run(["a", "b", "c", "d", "a", "b", "c", "d"], 3) == (1, ["a"])
    assert longest_run([], 6) == (0, [])


def test_what_was_said_four_times_is_no_loop():
    assert shown(said("a", "no no no no", "no no no no")) == {}
    assert shown(said("a", "no", "no no no no"), said("b", "no no", "no no no")) == {"loops": ["a"]}


def test_a_loop_of_whole_sentences_shows_by_its_compression_unless_the_reference_is_a_refrain():
    refrain = " ".join(["the quick brown fox jumped over the lazy dog again"] * 6)  # longer than any n-gram looked for
    assert shown(said("sung", refrain, refrain), said("looped", "the quick brown fox", refrain)) == {
        "loops": ["looped"]
    }


def test_words_on_an_empty_reference_are_a_sign_and_silence_is_none():
    found = shown(said("a", "", "thank you"), said("b", "", ""), said("c", "x y z u v", "x y z u v"))
    assert found == {"words_on_empty_references": ["a"]}


def test_more_text_than_anyone_can_say_is_a_sign():
    plain = [said(f"p{n}", PLAIN["en"], PLAIN["en"], 6.0) for n in range(200)]
    long = said("long", "one two", PLAIN["en"], 2.0)
    unknown = said("unknown", "one two", PLAIN["en"], math.nan)
    # Cut too short: the reference cannot be said either. It neither is a sign nor moves what is fast.
    cut = said("cut", PLAIN["en"], PLAIN["en"], 0.5)
    assert shown(*plain, long, unknown, cut) == {"over_long": ["long"]}


def test_another_script_is_a_sign_but_a_foreign_name_is_none():
    rows = [said(f"be{n}", PLAIN["be"], PLAIN["be"], language="be") for n in range(3)]
    rows += [said(f"en{n}", PLAIN["en"], PLAIN["en"], language="en") for n in range(3)]
    latin = said("latin", PLAIN["be"], "Thank you for watching", language="be")
    name = said("name", PLAIN["be"], "Раз'яднаць Windows было цяжка, бо снег ішоў", language="be")
    quoted = said("quoted", "OK Google", "OK Google", language="be")
    assert shown(*rows, latin, name, quoted) == {"wrong_script": ["latin"]}
    serbian = [said("lat", "dobar dan", "dobar dan"), said("cyr", "добар дан", "dobar dan")]
    assert shown(*serbian) == {}  # a language may have two


def test_scripts_are_told_by_letters_alone():
    scripts = [script_of(sign) for sign in "aйअகาあ漢カ한ש1 ,́"]
    assert scripts[:5] == ["LATIN", "CYRILLIC", "DEVANAGARI", "TAMIL", "THAI"]
    assert scripts[5:8] == ["CJK"] * 3
    assert scripts[8:] == ["HANGUL", "HEBREW", None, None, None, None]


def test_a_hit_of_the_token_limit_is_a_sign():
    assert shown(said("a", "x", "x", hit_token_limit=True), said("b", "x", "x")) == {"token_limit": ["a"]}


def test_every_kind_of_sign_is_in_the_summary_with_its_rule_and_utterances():
    signs = run_checks(score([said("a", "", "thank you", hit_token_limit=True)], str.lower))
    summary = {sign.name: sign.summary() for sign in signs}
    assert list(summary) == ["loops", "words_on_empty_references", "over_long", "wrong_script", "token_limit"]
    assert [entry["utterances"] for entry in summary.values()] == [0, 1, 0, 0, 1]
    assert summary["token_limit"]["ids"] == ["a"]
    assert all(entry["rule"] for entry in summary.values())
    json.dumps(summary)
    assert [sign.suspects for sign in run_checks(score([], str.lower))] == [()] * 5
