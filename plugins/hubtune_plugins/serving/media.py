"""Images and sounds of a request: their bytes, and checks that cost nothing of what they unpack to."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Any

from hubtune_plugins.serving.limits import Limits, Refusal

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of images; others that Pillow knows start programs or are hardly tested."""
DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,")
HOW = 'Send the bytes of a file as base64: {"%s": {"base64": "iVBORw0KGgo..."}}. Names of files are never read.'


def media_bytes(value: Any, role: str) -> bytes:
    """Return the bytes of an image or a sound, from `{"base64": ...}` or a `data:` address; a name of a file is refused."""
    text = value.get("base64") if isinstance(value, dict) and set(value) == {"base64"} else value
    if not isinstance(text, str):
        raise Refusal(422, f"'{role}' is {type(value).__name__}, not the base64 of a file.", HOW % role)
    if text.startswith("data:"):
        start = DATA.match(text)
        if start is None:
            raise Refusal(422, f"'{role}' is no data: address in base64.", HOW % role)
        text = text[start.end():]
    elif text is value:
        raise Refusal(422, f"'{role}' is a text, not the bytes of a file.", HOW % role)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, f"'{role}' is not base64.", HOW % role) from None


def pixels(data: bytes, role: str) -> int:
    """Return how many pixels an image has, from its header alone.

    Raises:
        Refusal: 422, no image that is taken; 413, one so large that Pillow itself refuses.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return int(image.width) * int(image.height)
    except Image.DecompressionBombError:
        raise Refusal(413, f"'{role}' has more pixels than are taken.", "Send a smaller image.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombWarning):
        raise Refusal(422, f"'{role}' is no image that can be read.", f"Taken are: {', '.join(FORMATS)}.") from None


def seconds(data: bytes, role: str) -> float:
    """Return how long a sound is, from its header alone."""
    import soundfile

    try:
        return float(soundfile.info(io.BytesIO(data)).duration)
    except (RuntimeError, TypeError, ValueError):
        raise Refusal(422, f"'{role}' is no sound that can be read.", "Taken are WAV, FLAC, OGG and MP3.") from None


def checked(kind: str, data: bytes, role: str, limits: Limits, room: int) -> int:
    """Refuse a file that unpacks to more than is taken; return its pixels. room: pixels that are left of the request."""
    if kind == "image":
        if (found := pixels(data, role)) > room:
            raise Refusal(413, f"'{role}' has {found:,} pixels; {limits.pixels:,} in all images of a request are taken.",
                          "Send smaller images, or fewer at a time.")
        return found
    if (length := seconds(data, role)) > limits.seconds_of_sound:
        raise Refusal(413, f"'{role}' is {length:.0f} seconds long; {limits.seconds_of_sound:.0f} are taken.",
                      "Send it in parts.")
    return 0
