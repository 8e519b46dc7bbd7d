"""Text normalisers for scoring: `get_normalizer("golden", language="be")("Раз’яднаць!") == "раз'яднаць"`.

The golden rule: never remove or merge anything that could turn one word into another; remove everything that nobody
speaks. The needs of a language are data (`Preset`), applied by a fixed list of small pure functions (`STEPS`).

docs/normalisation.md explains the rules to linguists. `python normalizers.py --help` tries them on your text. This file
imports nothing of the project and contains its data, so it can be copied anywhere.
"""

import argparse
import difflib
import hashlib
import io
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby, zip_longest
from typing import Any, Literal, NoReturn

Unit = Literal["words", "characters"]

VERSIONS: Mapping[Unit, str] = {"words": "1", "characters": "2"}
"""Version of the rules by the unit of a language. It is raised whenever a rule changes an output or a count, because
scores of two versions are not comparable."""


@dataclass(frozen=True)
class Preset:
    """Rules that one language needs. The default values are the rules of `und`, which lose no letter and no mark."""

    unit: Unit = "words"
    """Unit of the error rate: `characters` for languages written without spaces."""
    grouping: str = ""
    """Signs that group thousands (`1,000`). No-break spaces and apostrophes do so in every language."""
    final_apostrophe: bool = True
    """True if a word may end in an apostrophe (po', dogs')."""
    initial_apostrophe: str = ""
    """Regular expression for the text after an apostrophe that begins a word ('tis, 'ōlelo)."""
    apostrophe_after: str = ""
    """Letters that form one letter with an apostrophe, so that it never closes a quotation (Uzbek oʻ gʻ)."""
    apostrophe_letters: bool = True
    """True if U+02BC and similar signs are letters, kept everywhere; false if they only spell the apostrophe."""
    optional: str = ""
    """Marks that writers leave out (niqqud, tashkeel), as the inside of `[]` in a regular expression."""
    spellings: tuple[tuple[str, str], ...] = ()
    """Pairs (regular expression, replacement) that unify the encodings of a spelling, applied until nothing changes."""
    zwnj: Literal["keep", "drop", "space"] = "keep"
    """Zero-width non-joiner between letters of joining scripts: `drop` if it only changes the rendering."""
    zwj: Literal["keep", "drop"] = "keep"
    """Zero-width joiner, in the same way, after `spellings` has used it."""
    turkic_i: bool = False
    """True if I is the capital of ı, and İ the capital of i."""
    inner_colon: bool = False
    """True if a colon inside a word is spelling (EU:s)."""
    inner_dot: bool = False
    """True if a raised dot inside a word is spelling (col·legi)."""
    geresh: bool = False
    """True if apostrophes and double quotes after Hebrew letters are geresh and gershayim."""
    spoken: str = ""
    """Signs that are words in this language (Sindhi ۽), in addition to SPOKEN and the currencies."""
    hyphen: Literal["space", "keep", "delete"] = "space"
    """Hyphen between letters. `delete` makes re-sign resign, so it is only for comparison with such figures."""

    def __reduce__(self) -> tuple[Callable[..., "Preset"], tuple[Any, ...]]:
        return Preset, astuple(self)  # pickled without the cached properties below

    @cached_property
    def table(self) -> "CharacterTable":
        """Table for str.translate, which applies `plain` to each character."""
        return CharacterTable(self)

    @cached_property
    def same_spellings(self) -> list[tuple[re.Pattern[str], str]]:
        """The pairs of `spellings`, compiled."""
        return [(re.compile(pattern), replacement) for pattern, replacement in self.spellings]

    @cached_property
    def initial(self) -> re.Pattern[str]:
        """The expression `initial_apostrophe`, compiled; an empty one matches nothing."""
        return re.compile(self.initial_apostrophe or "(?!)", re.IGNORECASE)

    @cached_property
    def grouped(self) -> re.Pattern[str]:
        """Pattern of a number with grouped thousands. It has one kind of separator, and no digit before or after it."""
        start, end = r"(?<![0-9])(?<![0-9][.,])(?<![0-9]{0})[1-9]", r"(?!{0}?[0-9])"
        by_three = start + r"[0-9]{{0,2}}(?:{0}[0-9]{{3}})+" + end
        by_two = start + r"[0-9]?(?:{0}[0-9]{{2}})+{0}[0-9]{{3}}" + end  # 1,00,000: a lakh
        patterns = [by_three.format(re.escape(sign)) for sign in f"{NO_BREAK}'{self.grouping}"]
        return re.compile("|".join([*patterns, by_two.format(",")] if "," in self.grouping else patterns))

    @cached_property
    def loose(self) -> re.Pattern[str]:
        """Pattern of the signs that become spaces because of their neighbours, such as a full stop after a word.

        Other steps handle all other signs.
        """
        signs = [r"[.,](?:(?<![0-9].)|(?![0-9]))"]  # all except the decimal point and comma
        if self.unit == "characters":
            signs.append(r"-(?![0-9])")  # minus 5 (气温-5度) and 3 to 5 (3-5天) look alike: both stay
        else:
            hyphen = r'-(?:(?<=[^ .,:"·]-)|(?![0-9]))'  # all except a minus
            signs.append(hyphen if self.hyphen == "space" else f"(?!{BETWEEN_LETTERS}){hyphen}")
        signs.append(f":(?!(?<={INSIDE}:){LETTER})" if self.inner_colon else ":")
        if self.inner_dot:
            signs.append(f"·(?!(?<={LETTER}·){LETTER})")
        if self.geresh:
            signs.append(f'"|׳(?<!{HEBREW}׳)|״(?!(?<={HEBREW}״){HEBREW})')
        return re.compile("|".join(signs))


# --- The steps ------------------------------------------------------------------------------------------------------

NO_BREAK = "\xa0"  # represents every space that may group digits, until `numbers` removes it
SPOKEN = "%‰&@+=#§°№×÷±"  # read aloud, like all currency signs: C++ is not C, 50 % is not 50
APOSTROPHES = "'’‘‛`´′\u055a\u1fbd"  # U+2019 2018 201B 0060 00B4 2032, Armenian, Greek koronis
APOSTROPHE_LETTERS = "\u02bc\u02bb\ua78b\ua78c"  # ʼ ʻ Ꞌ ꞌ: letters in Unicode, but typed as apostrophes
SAME_SIGN = {
    **dict.fromkeys(APOSTROPHES, "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),  # hyphens, figure and en dash, minus; not the em dash
    **dict.fromkeys("\u202f\u2007\u2009\u066c", NO_BREAK),  # narrow, figure and thin space; Arabic thousands sign
    "‚": " '",  # U+201A always opens a quotation
    "\u066a": "%",  # Arabic percent, per mille and decimal signs
    "\u0609": "‰",
    "\u066b": ".",
}
# Characters that are invisible or drawn over their base. They are: soft hyphen, grapheme joiner, tatweel, bidi, word
# joiner, variation selectors, BOM, tags, enclosing marks, and the Armenian marks of intonation inside a word.
DELETED = re.compile(
    "[\xad\u034f\u0640\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
    "\u0488\u0489\u1abe\u20dd-\u20e0\u20e2-\u20e4\ua670-\ua672\u055b\u055c\u055e\u055f]"
)
# Blocks in which compatibility characters are other code points for the same text. Plain NFKC would make x² x2.
FOLDED = re.compile(
    "[ĲĳĿŀŉ\u2103\u2109\u2160-\u217f"  # ĳ ŀ ŉ, degrees Celsius and Fahrenheit, Roman numerals
    "\u2e80-\u2fdf\u309b\u309c\u3200-\u33ff"  # CJK radicals, ゛ ゜ after their kana, enclosed CJK, squared units
    "\ufb00-\ufdff\ufe10-\ufe19\ufe50-\ufefc\uff00-\uffef"  # ligatures, presentation forms, full and half width
    "\U0001d400-\U0001d7ff]"  # mathematical letters and digits
)
JOINING = "\u0600-\u08ff\u0900-\u109f\u1780-\u180d\u180f-\u18af\u1900-\u1c7f\u1cd0-\u1cff\ua800-\uaaff\uabc0-\uabff"
JOINERS = "\u200c\u200d\u180e"
LOOSE_JOINERS = re.compile(f"(?<![{JOINING}{JOINERS}])[{JOINERS}]++|[{JOINERS}]++(?![{JOINING}])")
SPECIAL_TOKEN = re.compile(r"<\|[^<>]*\|>")
# A tag has no inner space at its edges, and a tag of several words is not attached to a word. So neither
# a < b > c nor x<y and y>z is a tag.
ANNOTATION = re.compile(r"[\[［][^\[\]［］]*[\]］]|[<＜](?!\s)(?:[^<>＜＞\s]*|(?<!\w.)[^<>＜＞]*)(?<!\s)[>＞]")
NEGATIVE_MONEY = re.compile(r"[-\u2212]([$£¥\u20a0-\u20cf])(?=[0-9])")
LEADING_POINT = re.compile(rf"\.(?=[0-9])(?<![^ {NO_BREAK}-]\.)")
# After `characters`, these signs and spaces remain, beside letters, digits and spoken signs.
EDGE = " '\".,:·׳״-" + APOSTROPHE_LETTERS
INSIDE, LETTER = f"[^{re.escape(EDGE)}]", f"[^{re.escape(EDGE)}0-9]"
BETWEEN_LETTERS = f"(?<={LETTER})-(?={LETTER})"
HEBREW = "[\u0591-\u05c7\u05d0-\u05f2]"
APOSTROPHE = re.compile(f"['{APOSTROPHE_LETTERS}]")
APOSTROPHE_RUN = re.compile(f"['{APOSTROPHE_LETTERS}]{{2,}}")
DIGITS = "0123456789"
NOT_BETWEEN_LATIN = re.compile(r"'(?!(?<=[A-Za-zÀ-ɏ]')[A-Za-zÀ-ɏ])")
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"  # CJK
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # rare kana and ideographs
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff"  # Thai, Lao, Burmese, Khmer
)
"""Characters of scripts that are written without spaces between words."""
WORD_SIGN = r"[\w'\u0300-\u036f\u0900-\u0dff]"  # part of a word or number: a letter, digit, apostrophe or mark
# A space between two words of other scripts, or two numbers, separates them. Every other space is the typist's.
SPACE_OF_NO_WORD = re.compile(f"(?<!{WORD_SIGN}) | (?!{WORD_SIGN})|(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")

nfc = partial(unicodedata.normalize, "NFC")


def tokens_and_annotations(text: str, preset: Preset) -> str:
    """Remove Whisper's <|..|>, [annotations] and <tags>. Words in () and {} stay, because they may have been spoken."""
    if "<|" in text:
        text = SPECIAL_TOKEN.sub(" ", text)
    if "[" in text or "<" in text or "［" in text or "＜" in text:  # four times as fast as any()
        while (rest := ANNOTATION.sub(" ", text)) != text:  # nested annotations, the inner one first
            text = rest
    return text


def plain(char: str, preset: Preset) -> str:
    """Return the replacement of one character, which may be "", a space, or several characters.

    Signs whose meaning depends on their neighbours (EDGE) stay here, because later steps decide about them.
    """
    kind = unicodedata.category(char)
    if DELETED.match(char) or (preset.optional and re.match(f"[{preset.optional}]", char)):
        return ""
    if FOLDED.match(char) and kind != "No" and (parts := unicodedata.decomposition(char).split()):
        folded = "".join(plain(chr(int(code, 16)), preset) for code in parts[1:])
        return folded.lstrip() if kind == "Lo" else folded  # a single Arabic mark decomposes into space and mark
    if kind == "Nd":
        return str(unicodedata.decimal(char))
    if char in APOSTROPHE_LETTERS and not preset.apostrophe_letters:
        return "'"
    sign = SAME_SIGN.get(char, char)
    if sign[-1] in f"'.,:-{NO_BREAK}":
        return sign
    if preset.inner_dot and sign in "·•‧∙⋅・":
        return "·"
    if preset.geresh and sign in '"“”„‟״׳':
        return sign if sign in "״׳" else '"'
    if char in "\u200c\u200d\u180e":
        return char if char != "\u200c" else {"keep": char, "drop": "", "space": " "}[preset.zwnj]
    if kind == "Sc" or sign in SPOKEN + preset.spoken:
        return f" {sign} "
    return " " if is_silent(char, kind) else char


def is_silent(char: str, kind: str) -> bool:
    """Return True for punctuation, symbols, spaces, controls, and emoji that this version of Python does not know."""
    newer_emoji = kind == "Cn" and "\U0001f000" <= char < "\U0001fc00"
    return kind[0] in "PSZ" or kind in ("Cc", "Cf", "Cs") or newer_emoji


class CharacterTable(dict[int, str]):
    """Cache of `plain` by code point: str.translate computes each character once and then looks it up."""

    def __init__(self, preset: Preset):
        super().__init__()
        self.preset = preset

    def __missing__(self, code: int) -> str:
        value = self[code] = plain(chr(code), self.preset)
        return value


def characters(text: str, preset: Preset) -> str:
    """Delete format characters, fold compatibility forms, make digits ASCII, and replace silent signs by spaces."""
    if "$" in text or "-" in text or "\u2212" in text:
        text = NEGATIVE_MONEY.sub(r"\1-", text)  # -$5 becomes $ -5, because the minus belongs to the number
    return nfc(text.translate(preset.table))


def numbers(text: str, preset: Preset) -> str:
    """Remove grouping from numbers (1,000 becomes 1000), and put 0 before a leading point.

    No-break spaces that do not group digits become spaces.
    """
    if "." in text:
        text = LEADING_POINT.sub("0.", text)
    if NO_BREAK in text or "'" in text or any(sign in text for sign in preset.grouping):
        text = preset.grouped.sub(lambda number: re.sub("[^0-9]", "", number[0]), text).replace(NO_BREAK, " ")
    return text


def spellings(text: str, preset: Preset) -> str:
    """Replace different encodings of the same spelling by one of them, with the pairs of the preset.

    Without pairs, the text is returned unchanged. Otherwise the result is in NFC.
    """
    before = None
    while preset.same_spellings and text != before:
        before = text
        for pattern, replacement in preset.same_spellings:
            text = pattern.sub(replacement, text)
        text = nfc(text)
    return text


def joiners(text: str, preset: Preset) -> str:
    """Remove joiners (ZWNJ, ZWJ, U+180E), except between characters of joining scripts.

    A preset with `zwj="drop"` removes every ZWJ. Then other characters are neighbours, so NFC and `spellings` follow.
    """
    if "\u200c" not in text and "\u200d" not in text and "\u180e" not in text:
        return text
    if preset.zwj == "drop":
        text = text.replace("\u200d", "")
    while (
        kept := spellings(nfc(LOOSE_JOINERS.sub("", text)), preset)
    ) != text:  # letters become neighbours, and marks change their order
        text = kept
    return text


def apostrophes(text: str, preset: Preset) -> str:
    """Write apostrophes that belong to a word as U+0027, and replace apostrophes that quote by spaces.

    An apostrophe at the end of a word closes a quotation if one is open. If the unit is characters, only apostrophes
    between Latin letters stay.
    """
    if not APOSTROPHE.search(text):
        return text
    if preset.unit == "characters":
        return NOT_BETWEEN_LATIN.sub(" ", text)
    text = APOSTROPHE_RUN.sub(lambda run: run[0].replace("'", " "), text)  # two are a double quote
    marks, open_quotes, kept_until = list(text), 0, 0
    for at in [match.start() for match in APOSTROPHE.finditer(text)]:
        before, after = text[at - 1 : at] or " ", text[at + 1 : at + 2] or " "
        if at < kept_until or before in APOSTROPHE_LETTERS or after in APOSTROPHE_LETTERS:
            continue  # the second apostrophe of 'n', or a run of apostrophe letters
        left, right = before not in EDGE, after not in EDGE
        final = left and not right and preset.final_apostrophe and before not in DIGITS
        initial = preset.initial.match(text, at + 1) if right and not left else None
        if left and right and not (before in DIGITS and after in DIGITS):  # сям'я
            marks[at] = "'"
        elif initial:  # 'tis
            marks[at], kept_until = "'", initial.end()
        elif text[at] in APOSTROPHE_LETTERS:  # never a quote
            marks[at] = "'" if final else text[at]
        elif left and before in preset.apostrophe_after:  # tog'
            marks[at] = "'"
        elif right and not left:  # opens a quotation, unless it replaces the century: '90s
            open_quotes, marks[at] = open_quotes + (after not in DIGITS), " "
        elif open_quotes and not right:  # closes the quotation
            open_quotes, marks[at] = open_quotes - 1, " "
        elif final:  # po', and the Hebrew geresh in סנדוויץ'
            marks[at] = "׳" if preset.geresh and re.match(HEBREW, before) else "'"
        else:  # 5'10, or an apostrophe alone
            marks[at] = " "
    return "".join(marks)


def punctuation(text: str, preset: Preset) -> str:
    """Replace punctuation by spaces, except decimal signs, minus, and signs that the preset keeps."""
    if preset.hyphen == "delete":
        text = re.sub(BETWEEN_LETTERS, "", text)
    return preset.loose.sub(" ", text)


def case(text: str, preset: Preset) -> str:
    """Convert to lower case; İ leaves no combining dot behind. casefold is not used, because it makes Masse of Maße."""
    if preset.turkic_i:
        text = text.replace("I", "ı")
    text = text.replace("İ", "i").lower()
    return re.sub("i\u0307+", "i", text) if preset.turkic_i else text


def spaces(text: str, preset: Preset) -> str:
    """Put one space between words and none at the ends, in NFC.

    For a language without word spaces, only spaces between two words of other scripts or two numbers stay.
    """
    text = " ".join(text.split())
    return nfc(text if preset.unit == "words" else SPACE_OF_NO_WORD.sub("", text))


STEPS = (tokens_and_annotations, characters, numbers, spellings, joiners, apostrophes, punctuation, case, spaces)


def golden(text: str, preset: Preset, steps: Sequence[Callable[[str, Preset], str]] = STEPS) -> str:
    """Apply the steps in their order; without `steps`, all steps of the golden rule.

    For languages written without spaces, they are repeated until nothing changes. Deletions come first, because they
    change which characters are neighbours.
    """
    text, before = nfc(text), None
    while text != before:
        before = text
        for step in steps:
            text = step(text, preset)
        if preset.unit == "words":
            break  # one pass is enough, unless removed spaces make letters neighbours
    return text


def unpunctuated(text: str, preset: Preset) -> str:
    """Apply all steps of the golden rule except `case`, so that capitals stay."""
    return golden(text, preset, [step for step in STEPS if step is not case])


def orthographic(text: str) -> str:
    """Convert to NFC with single spaces, and change nothing else."""
    return " ".join(nfc(text).split())


def lower(text: str, preset: Preset) -> str:
    """Convert to lower case, in NFC with single spaces."""
    return nfc(case(orthographic(text), preset))


# --- The languages --------------------------------------------------------------------------------------------------


def _words(listed: str) -> str:
    """Return a regular expression for any of the words."""
    return f"(?:{'|'.join(sorted(listed.split(), key=len, reverse=True))})(?!{INSIDE})"


def _visarga(block: str) -> tuple[str, str]:
    """Return the spelling rule that an ASCII colon inside a word is the visarga of a script.

    `block` is the first code point of the script.
    """
    letters = f"[{block}-{chr(ord(block) + 0x7F)}]"
    return f"(?<={letters}):(?={letters})", chr(ord(block) + 3)


_VOWEL = "[аеёиоуыэюяіїєАЕЁИОУЫЭЮЯІЇЄ]"
_STRESS = ((f"\u0301(?:(?<={_VOWEL}.)|(?<={_VOWEL}[\u0300-\u036f].))", ""),)  # за́мак: written in dictionaries only
_EYELASH_RA = ("र्\u200d", "ऱ्")  # two encodings of one letter; दर्‍या (valleys) must not become दर्या (sea)
_KHANDA_TA = ("ত্\u200d", "ৎ")
_CHILLU = tuple((f"{letter}്\u200d", chillu) for letter, chillu in zip("ണനരലളകമയഴ", "ൺൻർൽൾൿൔൕൖ", strict=True))
_HARAKAT = "\u064b-\u0652"
_KAF_YEH = (("ك", "ک"), ("[يى]", "ی"))
_GERESH = ((f"(?<={HEBREW})(?:\"|''|׳׳)(?={HEBREW})", "״"), (f"(?<={HEBREW})'(?={HEBREW})", "׳"))
_THAI_LAO = (  # several encodings look alike: sara am and Lao am, tone marks before or after their vowel, two e for ae
    ("\u0e4d([\u0e48-\u0e4b]*)\u0e32", "\\1\u0e33"),
    ("([\u0e48-\u0e4b])([\u0e31\u0e34-\u0e37\u0e47])", r"\2\1"),
    ("\u0e33([\u0e48-\u0e4b])", "\\1\u0e33"),
    ("\u0e40\u0e40", "\u0e41"),
    ("\u0ecd([\u0ec8-\u0ecb]*)\u0eb2", "\\1\u0eb3"),
    ("\u0eb3([\u0ec8-\u0ecb])", "\\1\u0eb3"),
    ("\u0ec0\u0ec0", "\u0ec1"),
)
_MYANMAR = (("0(?=[\u102b-\u103e])", "ဝ"), ("7(?=[\u102b-\u103e])", "ရ"), ("4(?=င်း)", "၎"))  # digits typed as letters
_DIGRAPHS = tuple(zip("ǄǅǆǇǈǉǊǋǌ", ["DŽ", "Dž", "dž", "LJ", "Lj", "lj", "NJ", "Nj", "nj"], strict=True))

_CYRILLIC = Preset(final_apostrophe=False, apostrophe_letters=False)
_HEBREW = Preset(geresh=True, apostrophe_letters=False, spellings=_GERESH)
_INDIC = Preset(zwnj="drop")
_DEVANAGARI = Preset(zwnj="drop", zwj="drop", spellings=(_EYELASH_RA, ("अ\u200d?ॅ", "ॲ"), _visarga("ऀ")))
_SPACELESS = Preset(unit="characters")
_DUTCH = Preset(initial_apostrophe=_words("s t n k m r d ie em er"))
_OKINA = Preset(initial_apostrophe="[aeiouāēīōū](?![\u0300-\u036f])", final_apostrophe=False)

_PRESETS = {  # languages of a row: their common preset
    "be bg mk ru uk": replace(_CYRILLIC, spellings=_STRESS),
    "ba cv kk ky mn sah sr tg tt": _CYRILLIC,
    "mk": replace(_CYRILLIC, spellings=_STRESS, initial_apostrophe="р"),
    "en": Preset(
        initial_apostrophe=_words(
            "tis tisn't twas twasn't twere twill twould til till em bout round cause cos coz cuz n n'"
        )
    ),
    "nl af fy li nds": _DUTCH,
    "lb": Preset(initial_apostrophe=_words("s t n")),
    "de": Preset(initial_apostrophe=_words("s n ne nem nen ner nes")),
    "it": Preset(initial_apostrophe=_words("ndrangheta ndrina ndrine sta ste sti sto")),
    "br": Preset(initial_apostrophe=_words("m n ta vel zo")),
    "cy": Preset(initial_apostrophe=_words("n r di dyn ma na sdim te")),
    "ga gd": Preset(initial_apostrophe=_words("na nam s sa san")),
    "el": Preset(
        initial_apostrophe=_words("ναι χω χεις χει χουμε χετε χουν ρθω ρθει ρθεις μαι σαι στε ταν τανε γω κει δω")
    ),
    "tl": Preset(initial_apostrophe=_words("di wag yan yun yon yung to pag no")),
    "mt": Preset(initial_apostrophe=_words("l il")),
    "ha": Preset(initial_apostrophe="y", final_apostrophe=False),
    "haw sm to ty": _OKINA,
    "uz kaa": Preset(apostrophe_after="oOgG"),
    "az crh gag tr": Preset(turkic_i=True),
    "fi sv": Preset(inner_colon=True),
    "ca oc": Preset(inner_dot=True),
    "ro": Preset(
        spellings=(("ş", "ș"), ("Ş", "Ș"), ("ţ", "ț"), ("Ţ", "Ț"))
    ),  # old code pages have a cedilla instead of the comma
    "bs hr": Preset(spellings=_DIGRAPHS),
    "sr": replace(_CYRILLIC, spellings=_DIGRAPHS),
    "he": replace(_HEBREW, optional="\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"),
    "yi": replace(_HEBREW, spellings=(*_GERESH, ("װ", "וו"), ("ױ", "וי"), ("ײ", "יי"))),  # its points are spelling
    "ar": Preset(
        optional=f"{_HARAKAT}\u0670\u0610-\u061a\u0656-\u065f\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    ),
    "fa": Preset(zwnj="space", optional=f"{_HARAKAT}\u0670", spellings=(*_KAF_YEH, ("ۀ", "ه\u0654"))),
    "ur": Preset(zwnj="space", optional=_HARAKAT, spellings=(*_KAF_YEH, ("ه", "ہ"), ("ۀ", "ۂ"), ("ة", "ۃ"))),
    "ps": Preset(zwnj="space", optional=_HARAKAT, spellings=(("ك", "ک"),)),  # its five yehs are five letters
    "sd": Preset(zwnj="space", optional=_HARAKAT, spoken="۽۾"),  # ain (and), men (in); ڪ and ک are two letters
    "ckb": Preset(spellings=(("ه\u200c", "ە"),)),
    "hi mr ne sa": _DEVANAGARI,
    "gu": replace(_INDIC, zwj="drop", spellings=(_visarga("\u0a80"),)),
    "as bn": replace(_INDIC, spellings=(_KHANDA_TA, _visarga("\u0980"))),  # ZWJ stays: র‍্য is not র্য
    "or": replace(_INDIC, spellings=(_visarga("\u0b00"),)),
    "te": replace(_INDIC, spellings=(_visarga("\u0c00"),)),
    "kn": replace(_INDIC, spellings=(_visarga("\u0c80"),)),
    "pa si": _INDIC,
    "ta": replace(_INDIC, spellings=(("ஶ்ரீ", "ஸ்ரீ"),)),  # shri before and after Unicode 4.1
    "ml": Preset(zwnj="drop", zwj="drop", spellings=(*_CHILLU, ("ൻ്റ", "ന്റ"), _visarga("\u0d00"))),
    "ja yue zh": _SPACELESS,
    "th lo": replace(_SPACELESS, zwnj="drop", zwj="drop", spellings=_THAI_LAO),
    "km": replace(_SPACELESS, zwnj="drop", zwj="drop", optional="\u17b4\u17b5"),  # inherent vowels, never visible
    "my": replace(_SPACELESS, zwnj="drop", zwj="drop", spellings=_MYANMAR, spoken="၌၍၎၏"),
}
_GROUPING = {
    ",": "am ar as bn cy dv en fa ga gu ha haw he hi ja kn ko mi ml mr ms mt my ne or pa ps sd si sn so sw ta te th tl "
    "ur yi yo yue zh",
    ".": "az bs ca da de el es eu fo gl hr id is it jw lb mk nl pt ro sl sq sr su tr vi",
}

# Each entry: code, ISO 639-3 and other codes, names. The first 100 are Whisper's.
_LANGUAGES = """
af afr afrikaans; am amh amharic; ar ara arb arabic; as asm assamese; az aze azj azerbaijani; ba bak bashkir;
be bel belarusian; bg bul bulgarian; bn ben bengali; bo bod tibetan; br bre breton; bs bos bosnian;
ca cat catalan valencian; cs ces czech; cy cym welsh; da dan danish; de deu german; el ell greek; en eng english;
es spa spanish castilian; et est ekk estonian; eu eus basque; fa fas pes persian; fi fin finnish; fo fao faroese;
fr fra french; gl glg galician; gu guj gujarati; ha hau hausa; haw hawaiian; he heb iw hebrew; hi hin hindi;
hr hrv croatian; ht hat haitian haitian-creole; hu hun hungarian; hy hye armenian; id ind in indonesian;
is isl icelandic; it ita italian; ja jpn japanese; jw jv jav javanese; ka kat georgian; kk kaz kazakh; km khm khmer;
kn kan kannada; ko kor korean; la lat latin; lb ltz luxembourgish letzeburgesch; ln lin lingala; lo lao;
lt lit lithuanian; lv lav lvs latvian; mg mlg plt malagasy; mi mri maori; mk mkd macedonian; ml mal malayalam;
mn mon khk mongolian; mr mar marathi; ms msa zsm malay; mt mlt maltese; my mya myanmar burmese; ne nep npi nepali;
nl nld dutch flemish; nn nno nynorsk; no nor nb nob norwegian; oc oci occitan; pa pan panjabi punjabi;
pl pol polish; ps pus pbt pashto pushto; pt por portuguese; ro ron mo romanian moldavian moldovan; ru rus russian;
sa san sanskrit; sd snd sindhi; si sin sinhala sinhalese; sk slk slovak; sl slv slovenian; sn sna shona;
so som somali; sq sqi albanian; sr srp serbian; su sun sundanese; sv swe swedish; sw swa swh swahili; ta tam tamil;
te tel telugu; tg tgk tajik; th tha thai; tk tuk turkmen; tl tgl fil tagalog; tr tur turkish; tt tat tatar;
uk ukr ukrainian; ur urd urdu; uz uzb uzn uzbek; vi vie vietnamese; yi yid ji yiddish; yo yor yoruba; yue cantonese;
zh zho cmn chinese mandarin;
ckb; crh; cv chv; dv div; eo epo; fy fry; ga gle; gag; gd gla; gn grn; gsw; ia ina; ig ibo; kaa; kab; ku kmr; ky kir;
lg lug; li lim; nan; nds; nso; ny nya; om orm; or ori ory; qu que; rm roh; rw kin; sah; sm smo; st sot; sc srd; ti tir;
tn tsn; to ton; ts tso; ty tah; ug uig; wo wol; xh xho; zu zul
"""
CODES = {name: entry.split()[0] for entry in _LANGUAGES.split(";") for name in entry.split()}


def _presets() -> dict[str, Preset]:
    presets = {code: Preset() for code in (*CODES.values(), "und")}
    presets |= {code: preset for codes, preset in _PRESETS.items() for code in codes.split()}
    for sign, codes in _GROUPING.items():
        presets |= {code: replace(presets[code], grouping=sign) for code in codes.split()}
    return presets


PRESETS = _presets()


def language_code(language: str | None) -> str:
    """Return the code of a language from a code, a locale (sv-SE, cmn_hans_cn) or a name; `und` if unknown or None."""
    key = re.sub("[_ ]", "-", (language or "").strip("<|> ").lower())
    return CODES.get(key) or CODES.get(key.split("-")[0], "und")


# --- Normalisers by name --------------------------------------------------------------------------------------------

NAMES = ("none", "lower", "unpunctuated", "golden", "whisper-basic", "whisper-english")
RULES = {"lower": lower, "unpunctuated": unpunctuated, "golden": golden}


@dataclass(frozen=True)
class TextNormalizer:
    """A normaliser with its identity. Record its fields with every score."""

    name: str
    language: str
    unit: Unit
    """Unit that the headline error rate should count."""
    version: str
    fingerprint: str
    """Hash of rules and data. Scores with different fingerprints are not comparable."""
    rule: Callable[[str], str] = field(repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        return self.rule(text)


def get_normalizer(
    name: str = "golden", language: str | None = None, spelling: Mapping[str, str] | None = None
) -> TextNormalizer:
    """Return the normaliser with a name, with the rules of a language. The whisper ones need the package transformers.

    Parameters
        name: One of NAMES.
        language: Code, locale or name of the language; an unknown language or None gets the rules of `und`.
        spelling: British-to-American map, for whisper-english only. Published English figures used the map of
            Whisper's `normalizer.json`, which a tokenizer has as `english_spelling_normalizer`.

    Raises ValueError for an unknown name, and if another normaliser gets a `spelling`.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown normaliser {name!r}{hint} (allowed: {', '.join(NAMES)})")
    if spelling is not None and name != "whisper-english":
        raise ValueError(f"normaliser {name!r} takes no spelling; only 'whisper-english' does")
    code = language_code(language)
    preset = PRESETS[code]
    rule, data = _rule(name, preset, dict(spelling or {}))
    version = VERSIONS[preset.unit]
    identity = json.dumps([version, name, preset.unit, data], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return TextNormalizer(name, code, preset.unit, version, fingerprint, rule)


def _rule(name: str, preset: Preset, spelling: dict[str, str]) -> tuple[Callable[[str], str], object]:
    """Return the function of a normaliser, and the data that determine its output. The fingerprint covers the data."""
    if name in RULES:
        return partial(RULES[name], preset=preset), asdict(preset)
    if name == "none":
        return orthographic, None
    import transformers  # here, because it is slow to import and only two normalisers need it
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    whisper = BasicTextNormalizer() if name == "whisper-basic" else EnglishTextNormalizer(spelling)
    return whisper, [transformers.__version__, spelling]


# --- python normalizers.py --language be < text ---------------------------------------------------------------------


class _CommandError(Exception):
    """Wrong use of the command, reported in one line."""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _CommandError(f"{message} (see --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Show the changes that a normaliser makes to the lines of standard input.

    Returns the exit code: 0, 2 for wrong use or an error of the files, 130 after Ctrl-C.
    """
    try:
        if sys.stdin is None or sys.stdout is None:
            raise _CommandError("standard input and output must be open: python normalizers.py --language be < text")
        _preview(argv)
        sys.stdout.flush()
    except (_CommandError, OSError) as error:
        if isinstance(error, OSError):  # so that flushing the rest does not fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has closed the pipe
            return 0
        print(f"normalizers.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _preview(argv: Sequence[str] | None) -> None:
    parser = _OneLineParser(
        prog="python normalizers.py",
        description="Shows the changes that a normaliser makes to the lines of standard input, and a summary.",
        epilog="example: python normalizers.py --language be < text",
        allow_abbrev=False,
    )
    parser.add_argument("--language", metavar="CODE", help="code, locale or name: be, sv-SE, belarusian")
    parser.add_argument("--name", default="golden", help=f"{', '.join(NAMES)} (default: golden)")
    parser.add_argument("--plain", action="store_true", help="print lines, even on a terminal, instead of a table")
    options = parser.parse_args(argv)
    try:
        normalizer = get_normalizer(options.name, options.language)
    except ValueError as refusal:
        raise _CommandError(f"--name: {refusal}") from None
    if options.language and normalizer.language == "und":
        print(f"no preset for {options.language!r}: using und, which loses no letter and no mark", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # on an ASCII terminal, escapes instead of a traceback
    as_table = sys.stdout.isatty() and not options.plain
    rows: list[tuple[int, str, str]] = []
    counts: Counter[tuple[str, str]] = Counter()
    lines = changed = 0
    for lines, before in enumerate(_input_lines(), start=1):
        after = normalizer(before)
        if after != before:
            changed += 1
            counts.update(changes(before, after))
            if as_table:
                rows.append((lines, visible(before), visible(after)))
            else:
                print(f"{lines}- {visible(before)}\n{lines}+ {visible(after)}")
    if as_table:
        _print_table(rows)
    rules = f"{normalizer.name}, {normalizer.language}, scored as {normalizer.unit}, version {normalizer.version}"
    print(f"{changed} of {lines} lines changed ({rules}, {normalizer.fingerprint})")
    for (old, new), count in counts.most_common():
        print(f"{count:7} × {described(old, new)}")


def _input_lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise _CommandError(
                f"line {number} is not UTF-8 (byte {error.start + 1}): convert the text first"
            ) from None


def _print_table(rows: list[tuple[int, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("line", "before", "after", show_lines=True)
    for number, before, after in rows:
        table.add_row(str(number), Text(before), Text(after))  # Text, so that square brackets are no markup
    Console().print(table)


LOWER_CASE, COMPOSED = ("A", "a"), ("NFD", "NFC")


def changes(before: str, after: str) -> Iterator[tuple[str, str]]:
    """Yield a pair (old text, new text) for each change in a line.

    All changes from capitals to lower case give the pair LOWER_CASE. A line that was not in NFC gives COMPOSED first.
    Either text is "" for characters that were added or removed.
    """
    from rapidfuzz.distance import Levenshtein

    if before != nfc(before):
        yield COMPOSED
        before = nfc(before)
    for differs, run in groupby(Levenshtein.opcodes(before, after), key=lambda code: code.tag != "equal"):
        if not differs:
            continue
        codes = list(run)  # joined, so that ﬁ is paired with fi
        old, new = before[codes[0].src_start : codes[-1].src_end], after[codes[0].dest_start : codes[-1].dest_end]
        if len(old) == len(new) or not (new or any(char.isalnum() for char in old)):
            pairs = zip_longest(old, new, fillvalue="")
            yield from (LOWER_CASE if right and right == left.lower() else (left, right) for left, right in pairs)
        else:
            yield old, new


def visible(text: str) -> str:
    """Return the text with escapes for invisible characters: controls, no-break spaces, byte order marks."""
    return "".join(char if char.isprintable() or char in JOINERS else f"\\u{ord(char):04x}" for char in text)


def described(old: str, new: str) -> str:
    """Describe a pair of `changes` in the summary, with the Unicode name of a single character."""
    if (old, new) == LOWER_CASE:
        return "letters in lower case"
    if (old, new) == COMPOSED:
        return "lines that were not composed (NFC)"
    name = f"  U+{ord(old):04X} {unicodedata.name(old, 'unnamed')}" if len(old) == 1 else ""
    result = {"": "removed", " ": "→ space"}.get(new, f"→ {visible(new)}")
    return f"{visible(old)}{name}  {result}" if old else f"{'space' if new == ' ' else visible(new)}  added"


if __name__ == "__main__":
    sys.exit(main())
