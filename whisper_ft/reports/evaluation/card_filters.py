"""Filters of the utterances on a page: by sign of hallucination, and by the values of columns."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whisper_ft.reports.evaluation.cards import UtteranceCard
from whisper_ft.reports.text import clipped
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.scores import Prediction

MOST_VALUES = 200  # values of one column in a list to choose from; a longer list is worse than the search
MOST_CHARACTERS = 60  # characters of a value
OWN_COLUMNS = ("language", "speaker", "detected_language", "problem")


@dataclass(frozen=True)
class CardFilter:
    """Filter of the cards by one field."""

    name: str
    """Name for people."""
    field: str
    """Name of the attribute `data-...` of a card that has the value."""
    options: Sequence[tuple[str, str]]
    """Values to choose from, each with its name."""
    values: Callable[[Prediction], str] | None = None
    """Function that returns the value of an utterance; None if the card has the attribute anyway."""


def card_filters(cards: Sequence[UtteranceCard], checks: Sequence[Check]) -> list[CardFilter]:
    """Return the filters that divide these cards: by sign if one has any, and by each column with several values."""
    signs = Counter(check.name for card in cards for check in card.signs)
    titles = [(check.name, f"{check.title} ({signs[check.name]:,})") for check in checks if signs[check.name]]
    filters = [CardFilter("Sign", "signs", [("*", "any sign"), *titles])] if titles else []
    extra = dict.fromkeys(name for card in cards for name in card.prediction.columns or ())
    for number, name in enumerate(dict.fromkeys((*OWN_COLUMNS, *extra))):
        values = _values_of(name)
        counts = Counter(values(card.prediction) for card in cards)
        if 1 < len(counts) <= MOST_VALUES:
            # A value has a letter before it, because an empty one means all.
            options = [(f"={value}", f"{value or 'not known'} ({counts[value]:,})") for value in sorted(counts)]
            filters.append(CardFilter(name, f"column{number}", options, values))
    return filters


def _values_of(name: str) -> Callable[[Prediction], str]:
    def value(prediction: Prediction) -> str:
        found = getattr(prediction, name) if name in OWN_COLUMNS else (prediction.columns or {}).get(name)
        return "" if found is None else clipped(str(found), MOST_CHARACTERS)

    return value
