"""Captions for pins that have an image and no caption: a Hugging Face image-to-text model writes them, pin events carry them.

The events (JSON lines, one a pin, as docs/events.md has them) replace the row of the view `pin_caption`: the caption and the
name of the model that wrote it. `everpin import events FILE` sends them; the worker then writes the feature store and embeds
the pin anew. The events file is also the journal: a run that was cut off goes on where it stopped. Nothing here reads or
writes the feature store itself, and a pin that has a caption is never touched.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from pins.events import PinUpdated
from training.captions.images import ImageFault, Images, is_remote, web_client
from training.captions.journal import Failure, Journal
from training.data import DataError

LOADERS = 4
"""Threads that open images; while the model writes, the processor waits for none."""


@dataclass(frozen=True, slots=True)
class PinImage:
    """A pin that has an image and no caption."""

    pin_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Report:
    """Pins of one run: captioned, failed, done in earlier runs, and left because their image must be fetched."""

    captioned: int
    failed: int
    done_before: int
    unfetched: int
    seconds: float


class Captioner:
    """An image-to-text model (BLIP and its like). Greedy or beam search: the same images give the same captions."""

    def __init__(self, model: str, device: str = "", beams: int = 3, max_tokens: int = 30) -> None:
        """`model`: a name on the hub or a local folder. Raises DataError when it cannot be loaded."""
        try:
            self._processor = AutoProcessor.from_pretrained(model)
            self._model = AutoModelForImageTextToText.from_pretrained(model).eval()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{model} is no image-to-text model that transformers can load: {error}; try Salesforce/blip-image-captioning-base") from error
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._search = {"num_beams": beams, "max_new_tokens": max_tokens, "do_sample": False}

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """What the model sees of an RGB image: float32 of shape (1, 3, height, width)."""
        pixels: torch.Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"]
        return pixels

    def captions(self, pixels: Sequence[torch.Tensor]) -> list[str]:
        """One caption per prepared image."""
        with torch.inference_mode():
            tokens = self._model.generate(pixel_values=torch.cat(list(pixels)).to(self._device), **self._search)
        return [" ".join(text.split()) for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


def read_pins(path: Path) -> list[PinImage]:
    """Pins with an image and no caption, from JSON lines or Parquet with pin_id, image_url and caption, as `everpin import` reads them.

    Of a pin that occurs twice the last row counts. Raises DataError.
    """
    newest: dict[str, PinImage | None] = {}
    for number, row in enumerate(_rows(path), start=1):
        if not isinstance(row, dict) or not isinstance(row.get("pin_id"), str) or not row["pin_id"]:
            raise DataError(f"{path}, row {number}: no pin_id; every row needs one, and pins to be captioned need an image_url")
        address, caption = row.get("image_url") or "", row.get("caption") or ""
        newest[row["pin_id"]] = PinImage(row["pin_id"], address) if address.strip() and not caption.strip() else None
    return [pin for pin in newest.values() if pin]


def _rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield from table.select([name for name in ("pin_id", "image_url", "caption") if name in table.column_names]).to_pylist()
            return
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}; give JSON lines, or Parquet with the suffix .parquet") from error


def caption_all(
    pins: Sequence[PinImage],
    captioner: Captioner,
    images: Images,
    journal: Journal,
    batch: int = 16,
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> Report:
    """Caption what the journal does not hold yet; each batch is on disk before the next one starts."""
    started, captioned, failed = time.monotonic(), 0, 0
    waiting = [pin for pin in pins if pin.pin_id not in journal.done]
    todo = [pin for pin in waiting if images.client or not is_remote(pin.address)]
    with ThreadPoolExecutor(LOADERS) as pool, tqdm(total=len(todo), desc="caption", unit="pin") as bar:
        for start in range(0, len(todo), batch):
            some = todo[start : start + batch]
            opened = list(pool.map(lambda pin: _opened(pin, captioner, images), some))
            ready = [(pin, pixels) for pin, pixels in zip(some, opened, strict=True) if not isinstance(pixels, Failure)]
            texts = captioner.captions([pixels for _, pixels in ready]) if ready else []
            faults = [fault for fault in opened if isinstance(fault, Failure)]
            faults += [Failure(pin.pin_id, pin.address, "the model wrote nothing") for (pin, _), text in zip(ready, texts, strict=True) if not text]
            events = [_event(pin, text, journal.model, now_us()) for (pin, _), text in zip(ready, texts, strict=True) if text]
            journal.add(events, faults)
            captioned, failed = captioned + len(events), failed + len(faults)
            bar.update(len(some))
            bar.set_postfix(failed=failed)
    return Report(captioned, failed, len(pins) - len(waiting), len(waiting) - len(todo), time.monotonic() - started)


def _opened(pin: PinImage, captioner: Captioner, images: Images) -> torch.Tensor | Failure:
    try:
        return captioner.prepare(images.open(pin.address))
    except ImageFault as fault:
        return Failure(pin.pin_id, pin.address, str(fault))
    except ValueError as error:  # some processors refuse pictures of a pixel or two
        return Failure(pin.pin_id, pin.address, f"the model's processor refuses it: {error}")


def _event(pin: PinImage, caption: str, model: str, at_us: int) -> PinUpdated:
    return PinUpdated(pin.pin_id, at_us, {"pin_caption": {"caption": caption, "caption_model": model}})


def name_of(model: str) -> str:
    """The name that is stored with captions: a hub name as it is, of a local folder its last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def main() -> None:
    """Command line."""
    args = _arguments()
    pins = read_pins(args.pins)
    with ExitStack() as stack:
        client = stack.enter_context(web_client(args.seconds)) if args.fetch else None
        journal = stack.enter_context(Journal(args.out, args.name or name_of(args.model), args.retry_failed))
        report = caption_all(
            pins,
            Captioner(args.model, args.device, args.beams, args.max_tokens),
            Images(args.images or args.pins.parent, client, args.seconds),
            journal,
            args.batch,
        )
    rate = report.captioned / report.seconds if report.seconds else 0.0
    print(f"{report.captioned} pins captioned by {journal.model} ({rate:.1f} pins/s), {report.failed} failed, {report.done_before} done before: {args.out}")
    if report.failed:
        print(f"why they failed: {journal.failures_path}; --retry-failed tries them again")
    if report.unfetched:
        print(f"{report.unfetched} pins have an http address: run again with --fetch")
    if report.captioned or report.done_before:
        print(f"send them: everpin import events {args.out}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.caption",
        description="Caption pins that have an image and no caption, and write the events that store the captions with their model's name.",
        epilog="An interrupted run goes on where it stopped. Then: everpin import events FILE",
    )
    parser.add_argument("--pins", type=Path, required=True, metavar="FILE", help="JSON lines or Parquet with pin_id, image_url, caption (docs/import.md)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="events as JSON lines; images that failed go to FILE.failures")
    parser.add_argument("--model", default="Salesforce/blip-image-captioning-base", help="name on the hub or local folder (default: %(default)s)")
    parser.add_argument("--name", default="", help="what is stored as caption_model (default: the model's name, of a folder its last part)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="what relative paths start from (default: the folder of --pins)")
    parser.add_argument("--fetch", action="store_true", help="fetch http(s) addresses; without it those pins are left")
    parser.add_argument("--seconds", type=float, default=10.0, help="limit on fetching one image (default: %(default)s)")
    parser.add_argument("--retry-failed", action="store_true", help="try images again that failed in an earlier run")
    parser.add_argument("--batch", type=int, default=16, help="images per step of the model (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=3, help="width of the beam search, 1 is greedy and faster (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=30, help="longest caption (default: %(default)s)")
    parser.add_argument("--device", default="", help="cpu, cuda, ... (default: cuda where there is one)")
    args = parser.parse_args()
    if min(args.batch, args.beams, args.max_tokens, args.seconds) <= 0:
        parser.error("--batch, --beams, --max-tokens and --seconds must be above 0")
    return args


if __name__ == "__main__":
    main()
