"""Speed of the normaliser `golden` beside transformers' BasicTextNormalizer: `python -m bench.normalizer_speed`.

`golden` may take at most three times as long, on 10,000 Belarusian sentences. The ratio is printed as one JSON line.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # because Python started as a script sees only the script's own folder

from normalizers import get_normalizer

SENTENCES = 10_000
ROUNDS = 7
ALLOWED_RATIO = 3.0
TEXT = (
    "у Беларусі зімой заўсёды было многа снегу і дзеці хадзілі на лыжах праз лес дзе стаялі старыя сосны пасля вайны "
    "мы вярнуліся дадому каб раз’яднаць аб'екты сям’я п'еса інтэрв'ю абʼём добры дзень вельмі прыгожы горад над ракой "
    "ён сказаў што заўтра будзе дождж а яна толькі ўсміхнулася кніга якую чытаў бацька ляжала побач Мінск Гродна Нёман"
)
WORDS = TEXT.split()


def belarusian_sentences(count: int, seed: int = 6) -> list[str]:
    """Make sentences of 4 to 14 words with the punctuation of read speech; equal seeds give equal sentences."""
    rng = random.Random(seed)
    sentences = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(4, 14))
        words[0] = words[0].capitalize()
        middle = len(words) // 2
        words[middle] += rng.choice(["", "", "", ",", ",", ":", " —", " -"])
        if rng.random() < 0.1:
            words[-1] = f"«{words[-1]}»"
        if rng.random() < 0.05:
            words[middle - 1] = str(rng.randint(2, 2030))
        sentences.append(" ".join(words) + rng.choice("....?!…"))
    return sentences


def seconds(normalize: Callable[[str], str], sentences: list[str]) -> float:
    """Measure the seconds for normalising all sentences once."""
    start = time.perf_counter()
    for sentence in sentences:
        normalize(sentence)
    return time.perf_counter() - start


def main() -> int:
    """Print the ratio of the fastest rounds. Returns 1 if the ratio is over the limit."""
    sentences = belarusian_sentences(SENTENCES)
    golden, basic = get_normalizer("golden", language="be"), get_normalizer("whisper-basic", language="be")
    rounds = [
        (seconds(golden, sentences), seconds(basic, sentences)) for _ in range(ROUNDS)
    ]  # in turn, under equal load
    ours, theirs = (min(times) for times in zip(*rounds, strict=True))
    result = {
        "bench": "normalizer_speed",
        "sentences": SENTENCES,
        "golden_us_per_sentence": round(ours / SENTENCES * 1e6, 2),
        "whisper_basic_us_per_sentence": round(theirs / SENTENCES * 1e6, 2),
        "ratio": round(ours / theirs, 3),
        "allowed_ratio": ALLOWED_RATIO,
    }
    print(json.dumps(result))
    return 0 if result["ratio"] <= ALLOWED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
