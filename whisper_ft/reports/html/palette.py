"""Colours of every page and picture, for light and for dark mode."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Palette:
    """Colours in the notation of CSS. `*_paper` and `*_ink` are background and text of a coloured box."""

    paper: str
    card: str
    ink: str
    soft: str
    line: str
    good: str
    good_paper: str
    good_ink: str
    fair: str
    fair_paper: str
    fair_ink: str
    poor: str
    poor_paper: str
    poor_ink: str
    info: str
    info_paper: str
    info_ink: str

    def css(self) -> str:
        """Return the colours as CSS custom properties: `--good-paper: #e2f1ea; …`."""
        return " ".join(f"--{name.replace('_', '-')}: {colour};" for name, colour in asdict(self).items())


LIGHT = Palette(
    paper="#f6f5f2", card="#ffffff", ink="#1f1e1b", soft="#66635c", line="#e3e0d9",
    good="#4c9a79", good_paper="#e2f1ea", good_ink="#1c573e",
    fair="#d98a1f", fair_paper="#fcefd9", fair_ink="#7a4600",
    poor="#cf3f36", poor_paper="#fbe3e1", poor_ink="#931d16",
    info="#3b78c9", info_paper="#e0ebfa", info_ink="#134a8e",
)  # fmt: skip
DARK = Palette(
    paper="#161618", card="#1f1f22", ink="#eceae5", soft="#a5a29a", line="#36363b",
    good="#4f9e7e", good_paper="#17382b", good_ink="#a9e2c9",
    fair="#d8932f", fair_paper="#43310f", fair_ink="#ffd696",
    poor="#df5a50", poor_paper="#4a1f1d", poor_ink="#ffb9b3",
    info="#5a93dd", info_paper="#1b3352", info_ink="#b9d6ff",
)  # fmt: skip

# One colour for each curve, by Okabe and Ito: colour-blind readers can tell them apart. (light, dark)
CURVES = (
    ("#0072b2", "#56a8e8"),
    ("#d55e00", "#f08a4b"),
    ("#009e73", "#3cc79a"),
    ("#b0568c", "#dd93bd"),
    ("#b37b00", "#f0b840"),
    ("#3a9ad9", "#8fd0f5"),
    (LIGHT.ink, DARK.ink),
)
