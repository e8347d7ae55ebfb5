"""Images of pins, from the addresses they carry to RGB pictures in memory. Reading only; the caption model is in `training.caption`.

An address is a local path, a `file:` address or, where fetching is asked for, `http(s):`. Whatever is wrong with one image
becomes an `ImageFault` with its reason and never stops the others. Addresses come from outside: fetch where no service of
your own answers to strangers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from PIL import Image, ImageOps

MAX_BYTES = 20_000_000
"""A larger file is no picture of a pin."""
MAX_PIXELS = 50_000_000
"""A picture that unpacks to more would fill the memory (a decompression bomb)."""
MAX_REDIRECTS = 3


class ImageFault(Exception):
    """This image cannot be captioned; the message says why."""


@dataclass(frozen=True, slots=True)
class Images:
    """Where images lie: `folder` is what relative paths start from; `client` fetches http(s) within `seconds`, None refuses."""

    folder: Path
    client: httpx.Client | None = None
    seconds: float = 10.0

    def open(self, address: str) -> Image.Image:
        """The picture, upright, RGB, on white where it is transparent. Raises ImageFault."""
        return decoded(self._fetched(address) if is_remote(address) else self._read(address))

    def _read(self, address: str) -> bytes:
        try:
            path = self.folder / local_path(address)
            if path.stat().st_size > MAX_BYTES:
                raise ImageFault(f"{path.stat().st_size} bytes; at most {MAX_BYTES} are read")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ImageFault("the file does not exist") from error
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            raise ImageFault(f"the file cannot be read: {error}") from error

    def _fetched(self, address: str) -> bytes:
        if self.client is None:
            raise ImageFault("an http address; ask for --fetch")
        deadline, body = time.monotonic() + self.seconds, bytearray()
        try:
            with self.client.stream("GET", address) as answer:
                answer.raise_for_status()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise ImageFault(f"more than {MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise ImageFault(f"not there after {self.seconds:g} s")
        except httpx.HTTPStatusError as error:
            raise ImageFault(f"the server answered {error.response.status_code}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: an address that no host can have
            raise ImageFault(f"cannot be fetched: {type(error).__name__} {error}".rstrip()) from error
        return bytes(body)


def web_client(seconds: float) -> httpx.Client:
    """A client for `Images`: a few redirects, and a limit on each wait."""
    return httpx.Client(timeout=seconds, follow_redirects=True, max_redirects=MAX_REDIRECTS, headers={"user-agent": "everpin-caption"})


def is_remote(address: str) -> bool:
    """Whether the address must be fetched."""
    return address.lower().startswith(("http://", "https://"))


def local_path(address: str) -> Path:
    """The path that a `file:` address or a plain path means. Raises ImageFault for another scheme or another machine."""
    parts = urlsplit(address)
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            raise ImageFault(f"a file on another machine, {parts.netloc!r}")
        return Path(url2pathname(parts.path))
    if "://" in address or parts.scheme.lower() == "data":
        raise ImageFault(f"no scheme that is read: {parts.scheme!r}; give a path, file: or http(s):")
    return Path(address)


def decoded(body: bytes) -> Image.Image:
    """The picture in these bytes; of an animation the first frame. Raises ImageFault."""
    try:
        with Image.open(BytesIO(body)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageFault(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are unpacked")
            return _on_white(ImageOps.exif_transpose(image))
    except ImageFault:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files
        raise ImageFault(f"no readable image: {error}") from error


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")
