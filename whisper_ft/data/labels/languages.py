"""Whisper's code for a language that is given by code, locale, name or token."""

import difflib
import re

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from whisper_ft.runtime.errors import UsageError

# Whisper's code, then other codes of the same language: ISO 639-2 and 639-3, withdrawn codes, standard varieties
_OTHER_CODES = """
af afr; am amh; ar ara arb; as asm; az aze azj; ba bak; be bel; bg bul; bn ben; bo bod; br bre; bs bos; ca cat;
cs ces; cy cym; da dan; de deu; el ell; en eng; es spa; et est ekk; eu eus; fa fas pes; fi fin; fo fao; fr fra;
gl glg; gu guj; ha hau; he heb iw; hi hin; hr hrv; ht hat; hu hun; hy hye; id ind in; is isl; it ita; ja jpn;
jw jv jav; ka kat; kk kaz; km khm; kn kan; ko kor; la lat; lb ltz; ln lin; lt lit; lv lav lvs; mg mlg plt; mi mri;
mk mkd; ml mal; mn mon khk; mr mar; ms msa zsm; mt mlt; my mya; ne nep npi; nl nld; nn nno; no nor nb nob; oc oci;
pa pan; pl pol; ps pus pbt; pt por; ro ron mo; ru rus; sa san; sd snd; si sin; sk slk; sl slv; sn sna; so som; sq sqi;
sr srp; su sun; sv swe; sw swa swh; ta tam; te tel; tg tgk; th tha; tk tuk; tl tgl fil; tr tur; tt tat; uk ukr;
ur urd; uz uzb uzn; vi vie; yi yid ji; yo yor; zh zho cmn
"""
# Names of FLEURS (google/fleurs, fleurs.py) that are not Whisper's, of languages that Whisper has.
_OTHER_NAMES = {
    "mandarin chinese": "zh",
    "cantonese chinese": "yue",
    "filipino": "tl",
}
# The same, of languages that Whisper lacks; their ISO 639 codes.
_LACKING_NAMES = {
    "asturian": "ast",
    "cebuano": "ceb",
    "fula": "ff",
    "ganda": "lg",
    "igbo": "ig",
    "irish": "ga",
    "kabuverdianu": "kea",
    "kamba": "kam",
    "kyrgyz": "ky",
    "luo": "luo",
    "northern sotho": "nso",
    "nyanja": "ny",
    "oriya": "or",
    "oromo": "om",
    "sorani kurdish": "ckb",
    "umbundu": "umb",
    "wolof": "wo",
    "xhosa": "xh",
    "zulu": "zu",
}
_CODES = {code: entry.split()[0] for entry in _OTHER_CODES.split(";") for code in entry.split()}
_CODES |= {code: code for code in LANGUAGES}
_LOCALE = re.compile(r"([a-z]{2,3})(-[a-z0-9]{1,8})*([.@].*)?")
"""Pattern of a locale: language code, then script, region and variants; POSIX appends an encoding."""


def code_of_name(language: str) -> str:
    """Return the code for an English name that FLEURS uses and Whisper does not; any other text is returned as it is.

    The code may be of a language that Whisper lacks.
    """
    name = _as_name(language)
    return _OTHER_NAMES.get(name) or _LACKING_NAMES.get(name) or language


def language_name(code: str) -> str:
    """Return Whisper's English name of a language, in lower case; the code itself for one that it lacks."""
    return str(LANGUAGES.get(code, code))


def is_same_language(one: str, other: str) -> bool:
    """True if two codes, locales or names mean the same language of Whisper.

    If Whisper lacks one of them, the texts are compared, case and surrounding spaces aside.
    """
    try:
        return whisper_language(one) == whisper_language(other)
    except UsageError:
        return one.strip().lower() == other.strip().lower()


def _as_name(language: str) -> str:
    return language.strip().lower().replace("_", " ").replace("-", " ")


def whisper_language(language: str) -> str:
    """Return Whisper's code for a language given as `be`, `bel`, `be-BY`, `Belarusian` or `<|be|>`.

    The names of FLEURS are understood, too. Raises UsageError for a language that Whisper does not have.
    """
    wanted = language.strip().lower().removeprefix("<|").removesuffix("|>").replace("_", "-")
    code = TO_LANGUAGE_CODE.get(wanted.replace("-", " ")) or _OTHER_NAMES.get(_as_name(wanted))
    if code is None and (locale := _LOCALE.fullmatch(wanted)):
        code = _CODES.get(locale[1])
    if code is None:
        lacking = _LACKING_NAMES.get(_as_name(wanted))
        near = [] if lacking else [word for word in re.findall(r"\w+", wanted) if word in TO_LANGUAGE_CODE]
        near += (
            [] if lacking else difflib.get_close_matches(wanted, TO_LANGUAGE_CODE, n=1, cutoff=0.8)
        )  # Kurdish is not Turkish
        hint = f" (did you mean {near[0].title()}?)" if near else ""
        name = f"{language!r} ({lacking})" if lacking else repr(language)
        raise UsageError(
            f"language {name}: not one of Whisper's{hint}; give a code, a locale or a name, such as be, be-BY, "
            "Belarusian. To teach a language that Whisper lacks, use the code of a similar one"
        )
    return str(code)
