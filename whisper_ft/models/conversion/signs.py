"""Signs that OpenAI's decoding never writes, because nobody speaks them (`non_speech_tokens` of openai-whisper)."""

SYMBOLS = (
    '" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (\' (" (( )) ((( ))) [[ ]] '
    "{{ }} ♪♪ ♪♪♪"
)
"""Suppressed, alone and after a space, if they are one token."""
NOTES = "♩♪♫♬♭♮♯"
"""Suppressed by their first token, which begins no other signs."""
NEVER_FIRST = (" -", " '")
"""Hyphen and quote are allowed inside a word, and not at its beginning."""
