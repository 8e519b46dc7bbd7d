"""Impulse response of a simulated room: image sources for the early reflections, decaying noise for the late ones.

Image sources are those of Allen and Berkley 1979. Their number grows with the cube of the time, so they end early. The
noise goes on with the power that the mean of all image sources would have.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whisper_ft.data.audio.containers import Waveform

SOUND_SPEED = 343.0
"""Speed of sound in m/s, at 20 degrees Celsius."""
SMALLEST_ROOM, LARGEST_ROOM = (3.0, 2.5, 2.3), (9.0, 7.0, 3.5)
"""Length, width and height in metres: from an office to a classroom."""
WALL_DISTANCE = 0.5
"""Least distance in metres of speaker and microphone from each wall."""
LEAST_DISTANCE = 0.3
"""Least distance in metres between speaker and microphone: nearer, a room is not heard."""
IMAGE_SECONDS = 0.05
"""Seconds after the direct sound up to which reflections are images. Later ones are too dense to be told apart."""
DECAY = 6 * np.log(10)
"""Decay of the power in one reverberation time, 60 dB, as a natural exponent."""

Point = npt.NDArray[np.float64]


class Room(NamedTuple):
    """Room with a speaker and a microphone: size and places [3] in metres, reverberation time in seconds."""

    size: Point
    speaker: Point
    microphone: Point
    rt60: float


def drawn_room(numbers: npt.NDArray[np.float64], rt60: float) -> Room:
    """Return a room by nine numbers from 0 to below 1: its size, and the places of speaker and microphone."""
    least, most = np.array(SMALLEST_ROOM), np.array(LARGEST_ROOM)
    size = least + (most - least) * numbers[:3]
    speaker, microphone = (WALL_DISTANCE + (size - 2 * WALL_DISTANCE) * part for part in (numbers[3:6], numbers[6:9]))
    if np.linalg.norm(speaker - microphone) < LEAST_DISTANCE:
        microphone = microphone + np.where(microphone[0] > size[0] / 2, -1.0, 1.0) * np.array([LEAST_DISTANCE, 0, 0])
    return Room(size, speaker, microphone, rt60)


def impulse_response(room: Room, rate: int, generator: np.random.Generator) -> Waveform:  # -> [samples]
    """Return the response of a room from the direct sound on, which is 1 at its first sample. It lasts `rt60` seconds.

    `generator` gives the noise of the late part.
    """
    response = np.zeros(max(round(room.rt60 * rate), 1))
    direct = float(np.linalg.norm(room.speaker - room.microphone))
    delays, amplitudes = _images(room, direct + SOUND_SPEED * min(IMAGE_SECONDS, room.rt60))
    samples = np.rint((delays - direct / SOUND_SPEED) * rate).astype(np.int64)
    is_early = samples < len(response)
    np.add.at(response, samples[is_early], direct * amplitudes[is_early])
    late = np.arange(round(IMAGE_SECONDS * rate), len(response))
    times = late / rate + direct / SOUND_SPEED
    # Images in a second number 4 pi c^3 t^2 / V, and the power of each is 1 / (c t)^2 before the walls take their part.
    power = 4 * np.pi * direct**2 * SOUND_SPEED / (np.prod(room.size) * rate) * np.exp(-DECAY * times / room.rt60)
    response[late] = np.sqrt(power) * generator.standard_normal(len(late))
    response[0] = 1.0
    return response.astype(np.float32)


def _images(room: Room, farthest: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return delays in seconds and amplitudes of the images of the speaker up to a distance in metres.

    An amplitude falls with the distance and at each wall. Reflections change the sign, so that they do not add up to a
    hum at the lowest frequencies.
    """
    walls = 2 * (room.size[0] * room.size[1] + room.size[1] * room.size[2] + room.size[0] * room.size[2])
    reflected = np.exp(-2 * DECAY * np.prod(room.size) / (SOUND_SPEED * walls * room.rt60))  # by Eyring's formula
    squares, orders = np.zeros((1, 1, 1)), np.zeros((1, 1, 1))
    for axis, (length, source, at) in enumerate(zip(room.size, room.speaker, room.microphone, strict=True)):
        numbers = np.arange(-int(farthest / length) - 1, int(farthest / length) + 2)
        along = numbers * length + np.where(numbers % 2 == 0, source, length - source) - at
        shape = [len(numbers) if axis == other else 1 for other in range(3)]
        squares = squares + (along**2).reshape(shape)
        orders = orders + np.abs(numbers).reshape(shape)
    is_near = squares <= farthest**2
    distances = np.sqrt(squares[is_near])
    return distances / SOUND_SPEED, (-reflected) ** orders[is_near] / distances
