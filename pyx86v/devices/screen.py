# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VGA shows in text mode: its memory read as the CRT controller would.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video subsystem"; characters are those of code page 437.
"""
from dataclasses import dataclass

WINDOW, WINDOW_BYTES = 0xB8000, 0x8000
SYMBOLS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
GLYPHS = SYMBOLS + bytes(range(32, 127)).decode("cp437") + "⌂" + bytes(range(128, 255)).decode("cp437") + " "
GRAPHICS = 1                    # graphics controller register 6, bit 0
MOST_ROWS, MOST_COLUMNS = 100, 160
# the sixteen colours of mode 3, (red, green, blue)
COLOURS = [(170 * (n >> 2 & 1) + 85 * (n >> 3), 170 * (n >> 1 & 1) + 85 * (n >> 3), 170 * (n & 1) + 85 * (n >> 3)) for n in range(16)]
COLOURS[6] = (170, 85, 0)


@dataclass(frozen=True)
class TextScreen:
    """A text screen: `lines`, one str a row; `attributes`, one bytes a row (bits 6..4 background, 3..0 foreground);
    `cursor`, (row, column) or None when it is off or elsewhere.  In a graphics mode there are no lines."""
    lines: list
    attributes: list
    cursor: tuple = None

    def __str__(self):
        return "\n".join(line.rstrip() for line in self.lines)


def read(window, crtc, graphics):
    """The TextScreen of the 32 KiB at B8000h, the 32 registers of the CRT controller and the graphics controller's."""
    if graphics[6] & GRAPHICS:
        return TextScreen([], [])
    height = (crtc[9] & 31) + 1 << (crtc[9] >> 7)
    scanned = (crtc[18] | (crtc[7] & 2) << 7 | (crtc[7] & 64) << 3) + 1
    rows, columns = min(max(scanned // height, 1), MOST_ROWS), min(crtc[1] + 1, MOST_COLUMNS)
    start, pitch = crtc[12] << 8 | crtc[13], crtc[19] * 2
    lines, attributes = [], []
    for row in range(rows):
        at = [2 * (start + row * pitch + column) % WINDOW_BYTES for column in range(columns)]
        lines.append("".join(GLYPHS[window[i]] for i in at))
        attributes.append(bytes(window[i + 1] for i in at))
    place = (crtc[14] << 8 | crtc[15]) - start
    shown = not crtc[10] & 0x20 and crtc[10] & 31 <= crtc[11] & 31 and place >= 0 and pitch
    row, column = divmod(place, pitch) if shown else (rows, 0)
    return TextScreen(lines, attributes, (row, column) if row < rows and column < columns else None)
