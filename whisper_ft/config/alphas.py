"""Points of an interpolation between a start model, 0, and a tuned one, 1, as settings name them."""

import math
from collections.abc import Sequence

MOST_ALPHAS = 101  # mixtures, which are all scored
TENTHS = "0:1:0.1"


def alphas_in(given: str | Sequence[float]) -> list[float]:
    """Return the points of a text such as `0:1:0.1` (first, last, step) or `0,0.3,1`, or of a list, in rising order.

    0 and 1 are always among them. Raises ValueError for anything that is no number from 0 to 1, or too many of them.
    """
    numbers = [*given] if not isinstance(given, str) else _numbers_in(given)
    for number in numbers:
        if not 0 <= number <= 1:
            raise ValueError(f"{number:g} is not between 0, the start model, and 1, the tuned one")
    found = sorted({0.0, 1.0, *(round(number, 6) for number in numbers)})
    if len(numbers) > MOST_ALPHAS:
        raise ValueError(f"these are more than {MOST_ALPHAS} mixtures, and each is scored on all sets; take fewer")
    return found


def _numbers_in(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.replace(":", ",").split(",")]
        if ":" not in text:
            return numbers
        first, last, step = numbers
    except ValueError:
        raise ValueError(f"{text!r} should be first:last:step, as in 0:1:0.1, or numbers, as in 0,0.3,1") from None
    if not (all(map(math.isfinite, numbers)) and step > 0 and last >= first):
        raise ValueError(f"{text!r} goes from {first:g} to {last:g} by {step:g}; the step must lead to the last number")
    count = int(min((last - first) / step + 1e-9, MOST_ALPHAS))  # one more than are allowed
    return [first + number * step for number in range(count + 1)]
