"""Letters of languages: scripts, and letters by which languages of one script differ.

The lists hold letters of ordinary texts, not of loanwords. A language that is not listed is not judged by its letters.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from whisper_ft.reports.diagnosis.character_classes import INSIDE_WORDS
from whisper_ft.scoring.unicode_text import script_of

LEAST_LETTERS = 400  # of all texts; fewer say little
FOREIGN_SHARE = 0.015  # of the letters, for those that a language does not have
OTHER_SCRIPT_SHARE = 0.5  # of the letters
LEAST_OWN_SHARE = 0.015  # of the letters, which every list under OWN exceeds in ordinary text
MOST_CANDIDATES = 6  # languages that a message names
ABSENT = 0.05  # ratio of the share found to LEAST_OWN_SHARE below which letters are absent

SCRIPTS = {
    "LATIN": "af az br bs ca cs cy da de en es et eu fi fo fr gl ha haw hr ht hu id is it jw la lb ln lt lv mg mi "
    "ms mt nl nn no oc pl pt ro sk sl sn so sq sr su sv sw tk tl tr uz vi yo",
    "CYRILLIC": "ba be bg kk mk mn ru sr tg tt uk uz",
    "ARABIC": "ar az fa pa ps sd ur",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa sd",
    "BENGALI": "as bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "MYANMAR": "my",
    "KHMER": "km",
    "TIBETAN": "bo",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am",
    "GREEK": "el",
    "CJK": "ja yue zh ko",
    "HANGUL": "ko",
}
"""Codes of the languages that are written in each script."""
SCRIPTS_OF: dict[str, set[str]] = {}
for _script, _codes in SCRIPTS.items():
    for _code in _codes.split():
        SCRIPTS_OF.setdefault(_code, set()).add(_script)

PLAIN = {
    "LATIN": frozenset("abcdefghijklmnopqrstuvwxyz"),
    "CYRILLIC": frozenset("абвгдежзийклмнопрстуфхцчшщьюя"),
}
"""Letters that most languages of a script share."""

OWN = {
    "sv": "åäö",
    "da": "æøå",
    "no": "æøå",
    "nn": "æøå",
    "fi": "äö",
    "et": "äöüõ",
    "de": "äöüß",
    "is": "áðéíóúýþæö",
    "fo": "áðíóúýæø",
    "fr": "éèêëàâçîïôûùœ",
    "es": "áéíóúñü",
    "pt": "áâãàçéêíóôõú",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "sk": "áäčďéíľĺňóôŕšťúýž",
    "hu": "áéíóöőúüű",
    "ro": "ăâîșşțţ",
    "tr": "çğıöşü",
    "az": "çəğıöşü",
    "vi": "ăâđêôơưàáảãạầấẩẫậằắẳẵặèéẻẽẹềếểễệìíỉĩịòóỏõọồốổỗộờớởỡợùúủũụừứửữựỳýỷỹỵ",
    "lv": "āčēģīķļņšūž",
    "lt": "ąčęėįšųūž",
    "sl": "čšž",
    "hr": "čćđšž",
    "bs": "čćđšž",
    "sq": "çë",
    "be": "іў",
    "uk": "іїє",
    "ru": "ыэё",
    "mk": "јѓќѕљњџ",
    "kk": "әғқңөұүһі",
    "mn": "өү",
    "tg": "ғӣқӯҳҷ",
    "tt": "әөүҗңһ",
    "as": "ৰৱ",
    "bn": "র",
    "fa": "پچژگی",
    "ur": "ےٹڈڑںھہی",
}
"""Letters beside the plain ones that make up more than LEAST_OWN_SHARE of the letters in ordinary text."""
MORE = {
    "be": "ыэёґ",
    "uk": "ґ",
    "ru": "ъ",
    "bg": "ъѝ",
    "sr": "ђјљњћџčćđšž",
    "kk": "ёъыэ",
    "mn": "ёъыэ",
    "tg": "ёъэ",
    "tt": "ёъыэ",
    "ba": "әғҙҡңөҫүһёъыэ",
    "en": "é",
    "nl": "éëïóáè",
    "it": "àèéìíòóùú",
    "lb": "äéëöüè",
    "ca": "àçéèíïóòúü",
    "gl": "áéíóúñü",
    "eu": "ñü",
    "mt": "ċġħżàèìòù",
    "cy": "âêîôûŵŷ",
    "sv": "é",
    "da": "é",
    "no": "éòô",
    "fi": "åšž",
    "et": "šž",
    "de": "é",
    "es": "ç",
    "vi": "",
    "id": "é",
    "ms": "é",
    "sw": "",
    "tl": "ñ",
    "af": "áéêëíîïôöúû",
}
"""Further letters of a language, which ordinary text may lack."""
ONLY_OTHERS = {"be": "ищъ", "as": "র", "bn": "ৰৱ", "uk": "ыэъё", "bg": "ыэё", "mk": "щьюяыэъё"}
"""Plain letters, or letters of a neighbour, that a language does not have."""


class Mismatch(NamedTuple):
    """Texts that are not in a language, by their letters."""

    reason: str
    candidates: list[str]
    """Codes of languages whose letters fit."""


def mismatch(language: str, texts: Iterable[str]) -> Mismatch | None:
    """Return the reason why texts cannot be in a language, given by its code; None if they can, or nothing is known."""
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update(filter(str.isalpha, unicodedata.normalize("NFC", text).lower()))
    for sign in INSIDE_WORDS:
        del letters[sign]
    if letters.total() < LEAST_LETTERS or language not in SCRIPTS_OF:
        return None
    reason = _reason(language, letters)
    if not reason:
        return None
    # A Latin text without special letters fits dozens of languages, of which English is named.
    is_latin = _scripts(letters).most_common(1)[0][0] == "LATIN"
    judged = [code for code in SCRIPTS_OF if code in OWN or not is_latin or code == "en"]
    return Mismatch(reason, sorted(code for code in judged if not _reason(code, letters))[:MOST_CANDIDATES])


def _scripts(letters: Counter[str]) -> Counter[str]:
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[script_of(letter) or ""] += count
    return scripts


def _reason(language: str, letters: Counter[str]) -> str:
    """Return the reason why letters are not those of a language; "" without one."""
    scripts, total = _scripts(letters), letters.total()
    foreign_script = Counter({name: n for name, n in scripts.items() if name and name not in SCRIPTS_OF[language]})
    if foreign_script.total() > OTHER_SCRIPT_SHARE * total:
        name, count = foreign_script.most_common(1)[0]
        usual = " or ".join(sorted(one.title() for one in SCRIPTS_OF[language]))
        return f"{100 * count / total:.0f} % of the letters are in the script {name.title()}, not {usual}"
    own = frozenset(OWN.get(language, ""))
    has_letters = language in OWN or language in MORE
    plain = frozenset().union(*(PLAIN.get(script, frozenset()) for script in SCRIPTS_OF[language]))
    allowed = (plain | own | frozenset(MORE.get(language, ""))) - frozenset(ONLY_OTHERS.get(language, ""))
    judged = {script for script in SCRIPTS_OF[language] if script in PLAIN}
    foreign = {
        letter: count
        for letter, count in letters.items()
        if letter not in allowed and (script_of(letter) in judged or letter in ONLY_OTHERS.get(language, ""))
    }
    if has_letters and sum(foreign.values()) > FOREIGN_SHARE * total:
        most = sorted(foreign, key=lambda letter: -foreign[letter])[:4]
        return f"{100 * sum(foreign.values()) / total:.1f} % of the letters are foreign to it, such as {' '.join(most)}"
    found = sum(letters[letter] for letter in own)
    if own and found < ABSENT * LEAST_OWN_SHARE * total:
        return f"{total:,} letters, and hardly any of {' '.join(sorted(own)[:8])}"
    return ""
