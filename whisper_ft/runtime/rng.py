"""Random numbers as a pure function of seed, step and position, so no generator state is saved in a checkpoint.

Other random draws between two steps (by an evaluation, a progress bar or a library) cannot change the training.
"""

import hashlib
import random

import numpy as np
import numpy.typing as npt
import torch

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of splitmix64
_MASK = (1 << 64) - 1

UInt64s = npt.NDArray[np.uint64]


def _splitmix64(x: UInt64s) -> UInt64s:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers that mixes every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash64(*key: int) -> int:
    """Return a 64-bit hash of a tuple of non-negative integers."""
    state = 0
    for part in key:
        state = (state + _GOLDEN + part) & _MASK
        state = int(_splitmix64(np.array([state], dtype=np.uint64))[0])
    return state


def permutation(n: int, *key: int) -> npt.NDArray[np.int64]:  # -> [n]
    """Return a permutation of range(n) that depends only on n and `key`.

    It is computed without the random generator of a library, so no upgrade of a library changes it.
    """
    counters = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(hash64(*key))
    return np.argsort(_splitmix64(counters), kind="stable").astype(np.int64)


def uniforms(n: int, *key: int) -> npt.NDArray[np.float64]:  # -> [n]
    """Return n numbers from 0 to below 1 that depend only on `key`; more of them begin with the same ones."""
    counters = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(hash64(*key))
    return (_splitmix64(counters) >> np.uint64(32)).astype(np.float64) / 2.0**32


def number_of(text: str) -> int:
    """Return a 64-bit number for a text, as a part of a key. Any text has one, also with lone surrogates."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def reseed(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Seed the generators of torch (all devices), numpy and `random` for one micro-batch.

    The random numbers that follow then do not depend on earlier ones.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{micro_batch}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # the same numbers; manual_seed would record the stack for a GPU found later, which takes 0.1 ms
        torch.default_generator.manual_seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)
