"""Encoded pictures (PNG, JPEG) to uint8 arrays, with Pillow.

No directory layout and no labels: the sources bring files or bytes to here.
"""

import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from adarts_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# Only these two decoders may see a file: others reach further (EPS runs a program).
FORMATS = ("PNG", "JPEG")
MAX_NAMED = 10
CHUNK = 256
# Below this, handing the interpreter lock around costs more than decoding in
# parallel gains (2 cores: CIFAR pictures 1.7 times slower, 400x500 JPEG 1.7 times
# faster).
THREADED_BYTES = 16_384

Encoded = Path | bytes
Pixels = UInt8[np.ndarray, "height width channel"]
Stack = UInt8[np.ndarray, "batch height width channel"]


class PictureError(ValueError):
    """One picture cannot be used; says why, the caller knows which."""


def decode(
    encoded: Encoded, *, channels: int = 3, image_size: int | None = None
) -> Pixels:
    """Decode one picture.

    Turned upright by its EXIF orientation when it comes from a file. Transparent parts
    show white behind them, as in a browser: dropping alpha would reveal whatever colour
    lies hidden there. Sixteen bits per value keep the upper eight. CMYK becomes RGB.

    Args:
      encoded: a file, or the bytes of one.
      channels: 3 for RGB, 1 for luminance (ITU-R 601).
      image_size: side in pixels; the picture is stretched to a square (bilinear,
        antialiased), so that nothing is cut off. None keeps its size.

    Returns:
      Values 0 to 255.

    Raises:
      PictureError: truncated, damaged, not a PNG or JPEG, or beyond Pillow's limit
        against decompression bombs.
    """
    from PIL import Image, ImageOps

    source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    try:
        with Image.open(source, formats=FORMATS) as picture:
            if image_size is not None:
                # JPEG can leave out detail that shrinking would drop anyway.
                picture.draft(None, (image_size, image_size))
            picture.load()
            upright = picture
            if not isinstance(encoded, bytes):
                upright = ImageOps.exif_transpose(picture)
            flat = _flatten(upright, "RGB" if channels == 3 else "L")
    except Image.UnidentifiedImageError as error:
        raise PictureError("not a PNG or JPEG picture") from error
    except (Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise PictureError(" ".join(str(error).split())) from error
    except (ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise PictureError(f"damaged, {' '.join(str(error).split())}") from error
    if image_size is not None and flat.size != (image_size, image_size):
        flat = flat.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(flat).reshape(flat.height, flat.width, channels)


def _flatten(picture: "Image.Image", mode: str) -> "Image.Image":
    """Reduce any mode of PNG or JPEG to 8 bits without transparency."""
    from PIL import Image

    if picture.mode.startswith("I"):
        values = np.clip(np.asarray(picture, dtype=np.int64), 0, 65535)
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert(mode)


def decode_all(
    pictures: Iterable[tuple[str, Encoded]],
    count: int,
    *,
    channels: int = 3,
    image_size: int | None = None,
    required_size: tuple[int, int] | None = None,
    way_out: str = "repair or remove them",
) -> Stack:
    """Decode pictures of one size into one array.

    Args:
      pictures: a name for messages, and the picture; at least one.
      count: how many there are.
      channels: see `decode`.
      image_size: see `decode`.
      required_size: height and width every picture must have after that; None for
        whatever the first one has.
      way_out: what to do about pictures that cannot be used, for the message.

    Returns:
      Pictures in the given order.

    Raises:
      UserError: pictures that cannot be read (up to ten are named), different sizes
        while ``image_size`` is None, or more pixels than the machine has memory.
    """
    if channels not in (1, 3):
        raise UserError(f"channels={channels}: pictures are read with 1 or 3 channels")

    def attempt(item: tuple[str, Encoded]) -> Pixels | PictureError:
        try:
            pixels = decode(item[1], channels=channels, image_size=image_size)
            _check_size(pixels, required_size)
            return pixels
        except PictureError as error:
            return error

    known = image_size and (image_size, image_size, channels)  # else the first tells
    stack, first_name, filled = _allocate(count, known) if known else None, "", 0
    unreadable: list[str] = []
    stream = iter(pictures)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(itertools.islice(stream, CHUNK)):
            apply = pool.map if _worth_threads(chunk[0][1]) else map
            for (name, _), pixels in zip(chunk, apply(attempt, chunk), strict=True):
                if isinstance(pixels, PictureError):
                    unreadable.append(f"{name!r} ({pixels})")
                    continue
                if stack is None:
                    stack, first_name = _allocate(count, pixels.shape), name
                if pixels.shape != stack.shape[1:]:
                    raise _sizes_differ(first_name, stack[0], name, pixels)
                stack[filled] = pixels
                filled += 1
    if unreadable or stack is None:
        raise _unreadable(unreadable, way_out)
    return stack


def _check_size(pixels: Pixels, required: tuple[int, int] | None) -> None:
    if required is not None and pixels.shape[:2] != required:
        (height, width), (wanted, wide) = pixels.shape[:2], required
        raise PictureError(f"{height}x{width} pixels instead of {wanted}x{wide}")


def _worth_threads(encoded: Encoded) -> bool:
    if isinstance(encoded, bytes):
        return len(encoded) > THREADED_BYTES
    return encoded.stat().st_size > THREADED_BYTES


def _allocate(count: int, shape: tuple[int, ...]) -> Stack:
    """Reserve the result, refusing what could only end in an out-of-memory kill."""
    needed = count * int(np.prod(shape))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > present:
            raise UserError(
                f"{count} pictures of {shape[0]}x{shape[1]} pixels need "
                f"{needed / 1e9:.0f} GB, this machine has {present / 1e9:.0f} GB; "
                "set image_size, such as image_size=64"
            )
    return np.empty((count, *shape), np.uint8)


def _sizes_differ(
    first_name: str, first: Pixels, name: str, other: Pixels
) -> UserError:
    return UserError(
        f"pictures differ in size: {first_name!r} is {first.shape[1]}x{first.shape[0]} "
        f"pixels (width x height), {name!r} is {other.shape[1]}x{other.shape[0]}; "
        "set image_size to bring all to one size, such as image_size=32"
    )


def _unreadable(found: list[str], way_out: str) -> UserError:
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    noun = "picture" if len(found) == 1 else "pictures"
    return UserError(
        f"cannot read {len(found)} {noun}: {', '.join(found[:MAX_NAMED])}{more}; "
        f"{way_out}"
    )


def resize_images(images: Stack, image_size: int) -> Stack:
    """Stretch decoded images to a square, channel by channel.

    Args:
      images: any number of channels.
      image_size: side of the result, pixels.

    Returns:
      The same result `decode` gives for a picture of these pixels.
    """
    from PIL import Image

    if images.shape[1:3] == (image_size, image_size):
        return images
    size = (image_size, image_size)
    resized = _allocate(len(images), (*size, images.shape[3]))
    for image, result in zip(images, resized, strict=True):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            stretched = plane.resize(size, Image.Resampling.BILINEAR)
            result[:, :, channel] = np.asarray(stretched)
    return resized
