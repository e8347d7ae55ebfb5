"""Captions, end to end, with a tiny random BLIP: images in, events out that the worker decodes; interruptions; every kind of bad image."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("PIL", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

import httpx  # noqa: E402  # after the skip
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from PIL import Image  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

from pins.events import PinUpdated, decode  # noqa: E402
from training import caption  # noqa: E402
from training.caption import Captioner, PinImage, caption_all, read_pins  # noqa: E402
from training.captions import images as caption_images  # noqa: E402
from training.captions.images import ImageFault, Images, decoded, local_path, web_client  # noqa: E402
from training.captions.journal import Journal  # noqa: E402
from training.data import DataError  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "red", "blue", "green", "chair", "dog", "house", "tree", "on", "by", "sea", "snow"]
NOW = 1_764_000_000_000_000
SIDE = 16


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A random BLIP of two layers and a tokenizer of twelve words, saved as the hub has it."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-blip"
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "bos_token": "[DEC]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names)
    images = transformers.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    torch.manual_seed(3)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16, "initializer_range": 0.8}
    ids = {"bos_token_id": 4, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 64, "encoder_hidden_size": 32, **ids, **layers}
    config = transformers.BlipConfig(text_config=text, vision_config={"image_size": SIDE, "patch_size": 8, **layers}, projection_dim=16)
    model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[:5] = -100.0  # words only: a caption is never empty
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(blip):
    return Captioner(str(blip), device="cpu", beams=2, max_tokens=6)


def picture(colour, size=(40, 30), kind="PNG", mode="RGB"):
    body = BytesIO()
    Image.new(mode, size, colour).save(body, kind)
    return body.getvalue()


COLOURS = ["red", "blue", "green", "white", "black", "yellow", "purple", "orange", "brown"]


@pytest.fixture
def album(tmp_path):
    """Nine pins with pictures, one with a caption, one without an image; and a file that lists them."""
    for number, colour in enumerate(COLOURS):
        (tmp_path / f"p{number}.png").write_bytes(picture(colour))
    rows = [{"pin_id": f"p{number}", "image_url": f"p{number}.png", "title": "kept out"} for number in range(len(COLOURS))]
    rows += [{"pin_id": "told", "image_url": "p0.png", "caption": "a person's words"}, {"pin_id": "bare", "caption": None}]
    (tmp_path / "pins.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def events(path):
    return [decode(None, line, timestamp_us=NOW, now_us=NOW * 2) for line in path.read_bytes().splitlines()]


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["caption", *map(str, words)])
    caption.main()


def test_images_become_events_that_the_worker_decodes(blip, album, monkeypatch, capsys):
    run(monkeypatch, "--pins", album / "pins.jsonl", "--out", album / "out" / "captions.jsonl", "--model", blip, "--batch", 4, "--max-tokens", 6)
    made = events(album / "out" / "captions.jsonl")
    assert [event.pin_id for event in made] == [f"p{number}" for number in range(len(COLOURS))]
    for event in made:
        assert isinstance(event, PinUpdated)
        assert event.features.keys() == {"pin_caption"}
        assert event.features["pin_caption"]["caption_model"] == "tiny-blip"
        assert set(event.features["pin_caption"]["caption"].split()) <= set(WORDS[5:])
    assert len({event.features["pin_caption"]["caption"] for event in made}) > 1, "pictures of several colours should not all read the same"
    told = capsys.readouterr().out
    assert "9 pins captioned by tiny-blip" in told
    assert "everpin import events" in told


def test_captions_do_not_depend_on_the_batch(captioner):
    pixels = [captioner.prepare(decoded(picture(colour))) for colour in COLOURS]
    together = captioner.captions(pixels)
    assert together == [captioner.captions([one])[0] for one in pixels]
    assert pixels[0].shape == (1, 3, SIDE, SIDE)


class Cut(Captioner):
    """A captioner that is interrupted after some batches."""

    def __init__(self, whole, batches):
        self.whole, self.batches = whole, batches

    def prepare(self, image):
        return self.whole.prepare(image)

    def captions(self, pixels):
        if not self.batches:
            raise KeyboardInterrupt
        self.batches -= 1
        return self.whole.captions(pixels)


def test_an_interrupted_run_goes_on_where_it_stopped(captioner, album):
    pins, out, images = read_pins(album / "pins.jsonl"), album / "captions.jsonl", Images(album)
    (album / "p1.png").unlink()
    with Journal(out, "blip") as journal, pytest.raises(KeyboardInterrupt):
        caption_all(pins, Cut(captioner, 2), images, journal, batch=3)
    assert len(events(out)) == 5
    with out.open("ab") as file:
        file.write(b'{"type":"pin_updated","pin_id":"p6","event_t')  # killed in the middle of a line
    with Journal(out, "blip") as journal:
        report = caption_all(pins, captioner, images, journal, batch=3)
    assert (report.captioned, report.failed, report.done_before) == (3, 0, 6)
    assert sorted(event.pin_id for event in events(out)) == [f"p{number}" for number in range(9) if number != 1]
    with Journal(out, "blip") as journal:
        assert caption_all(pins, captioner, images, journal).captioned == 0


def test_failed_images_are_tried_again_when_asked(captioner, album):
    pins, out, images = read_pins(album / "pins.jsonl"), album / "captions.jsonl", Images(album)
    (album / "p1.png").rename(album / "later.png")
    with Journal(out, "blip") as journal:
        assert caption_all(pins, captioner, images, journal).failed == 1
    (album / "later.png").rename(album / "p1.png")
    with Journal(out, "blip") as journal:
        assert caption_all(pins, captioner, images, journal).captioned == 0
    with Journal(out, "blip", retry_failed=True) as journal:
        assert caption_all(pins, captioner, images, journal).captioned == 1
    assert journal.failures_path.read_bytes() == b""
    assert len(events(out)) == 9


BAD = {
    "missing.png": (None, "does not exist"),
    "text.png": (b"<html>not found</html>", "no readable image"),
    "empty.png": (b"", "no readable image"),
    "half.png": (picture("red", (60, 60))[:90], "no readable image"),
    "half.jpg": (picture("red", (300, 300), "JPEG")[:500], "no readable image"),
    "huge.png": (picture("red", (200, 200)), "200 x 200 pixels; at most 10000"),
    "heavy.bmp": (picture("red", (90, 90), "BMP"), "bytes; at most 20000 are read"),
    "nul\0.png": (None, "cannot be read"),
    "ftp://host/a.png": (None, "no scheme that is read: 'ftp'"),
    "file://elsewhere/a.png": (None, "a file on another machine"),
}


def test_no_bad_image_stops_the_others(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_images, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(caption_images, "MAX_BYTES", 20_000)
    for name, (body, _) in BAD.items():
        if body is not None:
            (tmp_path / name).write_bytes(body)
    for name, size in {"good": (40, 30), "tiny": (1, 1), "thin": (1, 300)}.items():
        (tmp_path / f"{name}.png").write_bytes(picture("red", size))
    pins = [PinImage(name, name) for name in BAD] + [PinImage(name, f"{name}.png") for name in ("good", "tiny", "thin")]
    with Journal(tmp_path / "out.jsonl", "blip") as journal:
        report = caption_all(pins, captioner, Images(tmp_path), journal, batch=5, now_us=lambda: NOW)
    reasons = {row["pin_id"]: row["reason"] for row in map(json.loads, journal.failures_path.read_text().splitlines())}
    assert {name for name, (_, told) in BAD.items() if told in reasons.get(name, "")} == set(BAD) == set(reasons)
    assert [event.pin_id for event in events(tmp_path / "out.jsonl")] == ["good", "tiny", "thin"]
    assert (report.captioned, report.failed) == (3, len(BAD))
    assert all(event.event_time_us == NOW for event in events(tmp_path / "out.jsonl"))


def test_a_model_that_writes_nothing_or_refuses_an_image_is_a_failure(captioner, album):
    class Mute(Cut):
        def prepare(self, image):
            if image.getpixel((0, 0)) == (255, 0, 0):
                raise ValueError("no red, please")
            return super().prepare(image)

        def captions(self, pixels):
            return [""] * len(pixels)

    with Journal(album / "out.jsonl", "mute") as journal:
        report = caption_all(read_pins(album / "pins.jsonl"), Mute(captioner, 9), Images(album), journal)
    assert (report.captioned, report.failed) == (0, 9)
    assert journal.failures_path.read_text().count("the model wrote nothing") == 8
    assert "the model's processor refuses it: no red, please" in journal.failures_path.read_text()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_becomes_rgb(mode):
    body = picture(0, mode=mode, kind="TIFF" if mode == "CMYK" else "PNG")
    assert decoded(body).mode == "RGB"


def test_what_is_transparent_is_white():
    assert decoded(picture((0, 0, 0, 0), mode="RGBA")).getpixel((3, 3)) == (255, 255, 255)


def test_addresses_of_local_files(tmp_path):
    (tmp_path / "a b.png").write_bytes(picture("red"))
    for address in ("a b.png", str(tmp_path / "a b.png"), f"file://{tmp_path}/a%20b.png", f"file://localhost{tmp_path}/a%20b.png"):
        assert Images(tmp_path).open(address).size == (40, 30)
    for address in ("data:image/png;base64,AAAA", "s3://bucket/a.png"):
        with pytest.raises(ImageFault, match="no scheme that is read"):
            local_path(address)


@pytest.fixture
def site():
    """A server of one picture, one moved picture, one too large and one missing."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            pages = {"/red.png": (200, picture("red")), "/moved.png": (302, b""), "/large.png": (200, b"x" * 50_000), "/loop.png": (302, b"")}
            status, body = pages.get(self.path, (404, b"no"))
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/red.png" if self.path == "/moved.png" else "/loop.png")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_images_are_fetched_only_when_asked(captioner, site, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_images, "MAX_BYTES", 20_000)
    pins = [PinImage(name, f"{site}/{name}.png") for name in ("red", "moved", "large", "loop", "gone")] + [PinImage("odd", "http://[")]
    with Journal(tmp_path / "out.jsonl", "blip") as journal:
        assert caption_all(pins, captioner, Images(tmp_path), journal).unfetched == len(pins)
        with web_client(5) as client:
            report = caption_all(pins, captioner, Images(tmp_path, client, 5), journal)
    assert (report.captioned, report.failed, report.unfetched) == (2, 4, 0)
    reasons = {row["pin_id"]: row["reason"] for row in map(json.loads, journal.failures_path.read_text().splitlines())}
    assert reasons["gone"] == "the server answered 404"
    assert reasons["large"] == "more than 20000 bytes"
    assert "TooManyRedirects" in reasons["loop"]
    assert "cannot be fetched" in reasons["odd"]


def test_a_server_that_trickles_is_given_up(captioner, tmp_path):
    def trickle():
        while True:
            yield b"x"

    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=trickle())))
    with pytest.raises(ImageFault, match=r"not there after 0\.05 s"):
        Images(tmp_path, client, 0.05).open("http://slow/a.png")


def test_pins_are_read_from_parquet_too(tmp_path):
    rows = [{"pin_id": "a", "image_url": "a.png", "caption": ""}, {"pin_id": "b", "image_url": "b.png", "caption": "x"}, {"pin_id": "a", "image_url": "c.png"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pins.parquet")
    assert read_pins(tmp_path / "pins.parquet") == [PinImage("a", "c.png")]


@pytest.mark.parametrize(
    ("body", "told"),
    [("{not json", "cannot be read"), ('{"image_url": "a.png"}', "row 1: no pin_id"), ("[1]", "row 1: no pin_id"), ('{"pin_id": 7}', "row 1: no pin_id")],
)
def test_a_list_of_pins_that_is_none_is_refused(tmp_path, body, told):
    (tmp_path / "pins.jsonl").write_text(body)
    with pytest.raises(DataError, match=told):
        read_pins(tmp_path / "pins.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_pins(tmp_path / "absent.jsonl")


def test_a_journal_of_another_model_or_of_other_things_is_refused(captioner, album):
    with Journal(album / "out.jsonl", "blip") as journal:
        caption_all(read_pins(album / "pins.jsonl"), captioner, Images(album), journal)
    with pytest.raises(DataError, match="holds captions of blip, not of git"):
        Journal(album / "out.jsonl", "git")
    with pytest.raises(DataError, match="is no journal of captions"):
        Journal(album / "pins.jsonl", "blip")


def test_a_full_disk_is_told_and_nothing_is_lost(captioner, album, monkeypatch):
    pins, out = read_pins(album / "pins.jsonl"), album / "out.jsonl"
    with Journal(out, "blip") as journal:
        caption_all(pins[:3], captioner, Images(album), journal)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(DataError, match="No space left on device; make room and run the same command again"):
            caption_all(pins, captioner, Images(album), journal)
    monkeypatch.undo()
    with Journal(out, "blip") as journal:
        caption_all(pins, captioner, Images(album), journal)
    assert sorted(event.pin_id for event in events(out)) == sorted(pin.pin_id for pin in pins)


def test_a_model_that_is_none_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no image-to-text model that transformers can load"):
        Captioner(str(tmp_path))
