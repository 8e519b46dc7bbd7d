"""Formats of audio files that libsndfile cannot read, known by their first bytes, with the names that ffmpeg has."""

from whisper_ft.data.audio.file_bytes import AudioBytes

MAX_SEARCHED = 2**16
"""Bytes in which the first frame of an MP3 is searched, as many as ffmpeg's own reader searches."""
FRAMES_IN_A_ROW = 3
"""Frames of MP3 that must follow each other. Three headers by chance need 32 matching bits or more."""
ADTS = (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")
"""First bytes of AAC without a container: 12 bits of 1, and two bits of 0 where MP3 has its layer."""
QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Names of the boxes that an MP4 or QuickTime file begins with, behind four bytes of size."""
PREFIXES = {
    b"\x1aE\xdf\xa3": ("webm", "matroska"),  # EBML, also of mkv
    b"#!AMR": ("amr", "amr"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ("wma", "asf"),
    b"FLV\x01": ("flv", "flv"),
}
"""Kind and ffmpeg's format by the first bytes."""
KBITS = {
    (1, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by version (MPEG 1 or 2) and bits of the layer (3: I, 1: III), of ISO 11172-3 and 13818-3."""
RATES = (44100, 48000, 32000)
"""Sample rates of MPEG 1 in Hz; MPEG 2 has half and MPEG 2.5 a quarter of them."""


def ffmpeg_format(encoded: AudioBytes) -> tuple[str, str] | None:
    """Return kind and ffmpeg's format of a file by its first bytes, for a file that libsndfile could not open.

    None for any other file. Any MP3 is recognised, also one that libsndfile can read. ffmpeg never guesses a format
    itself, because it takes a text for a playlist and opens the addresses in it.
    """
    if encoded[4:8] in QUICKTIME:
        return "m4a", "mov"
    for prefix, names in PREFIXES.items():
        if encoded[: len(prefix)] == prefix:
            return names
    at = 0
    if encoded[:3] == b"ID3" and len(encoded) >= 10:  # a tag, whose size is stored in four bytes of 7 bits
        at = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(encoded[6:10]))
    if encoded[at : at + 2] in ADTS:
        return "aac", "aac"
    return ("mp3", "mp3") if _holds_mp3(encoded) else None


def _holds_mp3(encoded: AudioBytes) -> bool:
    """True if frames of MP3 follow each other somewhere in the first bytes."""
    head = encoded[:MAX_SEARCHED]
    at = head.find(b"\xff")
    while at >= 0:
        place = at
        for _ in range(FRAMES_IN_A_ROW):
            size = _frame_bytes(encoded[place : place + 4])
            place += size
            if not size:
                break
        else:
            return True
        at = head.find(b"\xff", at + 1)
    return False


def _frame_bytes(header: bytes) -> int:
    """Size in bytes of the MP3 frame with this header of four bytes; 0 if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3  # 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return 0
    hertz = RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = 1000 * KBITS[1 if version == 3 else 2, layer][bitrate - 1]
    if layer == 3:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding
