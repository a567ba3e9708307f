# SPDX-License-Identifier: GPL-2.0-or-later
"""A text screen for people: in the terminal, as a text file, as a picture."""
from rich.panel import Panel
from rich.style import Style
from rich.text import Text

from pyx86v.devices.screen import COLOURS

CELL = (8, 16)                  # pixels of a character
# Pillow's bitmap font ends at Latin-1
DRAWN = {**dict.fromkeys(map(ord, "┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬"), "+"), **str.maketrans("─═│║►◄▲▼•", "-=||><^v*")}


def colours(attribute):
    """(foreground, background) of an attribute byte, each (red, green, blue)."""
    return COLOURS[attribute & 15], COLOURS[attribute >> 4 & 7]


def panel(screen, title=""):
    """The screen as rich shows it, the cursor in reverse."""
    text = Text(no_wrap=True, end="")
    for row, (line, attributes) in enumerate(zip(screen.lines, screen.attributes)):
        text.append("\n" if row else "")
        first = 0
        for column in range(1, len(line) + 1):
            if column == len(line) or attributes[column] != attributes[first]:
                ink, paper = (f"rgb({','.join(map(str, colour))})" for colour in colours(attributes[first]))
                text.append(line[first:column], Style.parse(f"{ink} on {paper}"))
                first = column
    if screen.cursor:
        row, column = screen.cursor
        at = row * (len(screen.lines[0]) + 1) + column
        text.stylize("reverse", at, at + 1)
    return Panel(text if screen.lines else "(graphics)", title=title, expand=False, padding=0)


def check_target(path):
    """ValueError, one line, when a screen cannot be written to a file of this name."""
    if path.endswith(".png"):
        try:
            import PIL  # noqa: F401
        except ImportError:
            raise ValueError(f"{path}: a picture needs Pillow: pip install 'pyx86v[screen]'") from None
    elif not path.endswith(".txt"):
        raise ValueError(f"{path}: screen file, expected a name that ends in .png or .txt")


def write(screen, path):
    """To a text file or a picture, by the name's end."""
    if path.endswith(".png"):
        picture(screen).save(path)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{screen}\n")


def picture(screen):
    """The screen as a Pillow image, a character 8 by 16 pixels."""
    from PIL import Image, ImageDraw, ImageFont
    font = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()
    width = len(screen.lines[0]) if screen.lines else 80
    image = Image.new("RGB", (width * CELL[0], max(len(screen.lines), 1) * CELL[1]))
    draw = ImageDraw.Draw(image)
    for row, (line, attributes) in enumerate(zip(screen.lines, screen.attributes)):
        for column, (character, attribute) in enumerate(zip(line.translate(DRAWN), attributes)):
            ink, paper = colours(attribute)
            x, y = column * CELL[0], row * CELL[1]
            draw.rectangle((x, y, x + CELL[0] - 1, y + CELL[1] - 1), fill=ink if character in "█▓" else paper)
            if character not in " █▓":
                draw.text((x + 1, y + 2), character if character.isascii() else "?", fill=ink, font=font)
    if screen.cursor:
        row, column = screen.cursor
        x, y = column * CELL[0], row * CELL[1]
        draw.rectangle((x, y + 13, x + CELL[0] - 1, y + 14), fill=colours(screen.attributes[row][column])[0])
    return image
