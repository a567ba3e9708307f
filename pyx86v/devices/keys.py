# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person types as scan codes of set 1, on the keyboard of the United States.

Source: IBM PS/2 Hardware Interface Technical Reference, "Scan code set 1": a key's release is its code with bit 7 set.
"""
PLAIN = "\0\x1B1234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 "
SHIFTED = "\0\0!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0\0\0\0"
CODES = {character: (code, shift) for shift, row in ((True, SHIFTED), (False, PLAIN)) for code, character in enumerate(row) if character != "\0"}
EXTENDED = 0xE0
NAMED = {"esc": 0x01, "backspace": 0x0E, "tab": 0x0F, "enter": 0x1C, "ctrl": 0x1D, "shift": 0x2A, "alt": 0x38, "space": 0x39, "capslock": 0x3A,
         **{f"f{n}": 0x3A + n for n in range(1, 11)}, "f11": 0x57, "f12": 0x58,
         "up": 0xE048, "down": 0xE050, "left": 0xE04B, "right": 0xE04D, "home": 0xE047, "end": 0xE04F, "pageup": 0xE049, "pagedown": 0xE051,
         "insert": 0xE052, "delete": 0xE053}


def down(code):
    return bytes([EXTENDED, code & 0x7F]) if code > 0xFF else bytes([code])


def up(code):
    return bytes([EXTENDED, code & 0x7F | 0x80]) if code > 0xFF else bytes([code | 0x80])


def of_text(text):
    """The codes of typing `text`.  ValueError for a character that the keyboard lacks."""
    out = bytearray()
    for character in text:
        if character not in CODES:
            raise ValueError(f"keys: {character!r}, expected characters of a keyboard of the United States")
        code, shift = CODES[character]
        out += of_chord(NAMED["shift"], code) if shift else of_chord(code)
    return bytes(out)


def of_chord(*codes):
    """All keys down in order, then up in reverse."""
    return b"".join(map(down, codes)) + b"".join(map(up, reversed(codes)))


def of_names(names):
    """The codes of pressing keys together: names of NAMED or single characters.  ValueError for another."""
    codes = []
    for name in names:
        if name not in NAMED and (name not in CODES or CODES[name][1]):
            raise ValueError(f"keys: {name!r}, expected a character without Shift or one of {', '.join(NAMED)}")
        codes.append(NAMED.get(name) or CODES[name][0])
    return of_chord(*codes)
