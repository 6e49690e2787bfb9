"""datasets, manifest, download: what is here is found and checked; fetching resumes, is bounded and safe."""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taylorir.cli.main import main
from taylorir.datasets import download
from taylorir.datasets.cards import dataset_card
from taylorir.datasets.manifest import (
    ImageHash,
    SetEntry,
    check_root,
    manifest_entry,
    pixel_hash,
    read_manifest,
)
from taylorir.datasets.sets import (
    BENCHMARKS,
    FOLDERS,
    RESTORATION,
    SAMPLES,
    data_root,
    image_files,
    load_images,
    make_pair,
    sample_split,
)
from taylorir.images.degradations import degrade
from taylorir.images.io import write_image
from taylorir.images.pixels import to_grey
from taylorir.images.resize import imresize
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------ samples, pairs


def test_samples_are_colour_photographs_and_the_split_shares_none():
    training, held_out = sample_split()
    assert [len(training), len(held_out)] == [4, 3]
    names = {image.name for image in training} | {image.name for image in held_out}
    assert names == set(SAMPLES)
    for item in (*training, *held_out):
        assert min(item.image.shape[:2]) >= 300 and item.image.dtype == np.uint8
        assert np.ptp(item.image.astype(int), axis=2).mean() > 5, f"{item.name} is grey"


def test_held_out_samples_are_stored_without_loss():
    assert {file.suffix for file in image_files("samples_held_out")} == {".png"}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_pair_is_cropped_and_shrunk(scale):
    hr = noise(25, 35, 3)
    lr, cropped = make_pair(hr, scale)
    assert cropped.shape == (25 - 25 % scale, 35 - 35 % scale, 3)
    assert np.array_equal(lr, imresize(hr[: cropped.shape[0], : cropped.shape[1]], 1 / scale))


def test_a_folder_is_read_in_order(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks" / "Set5"
    folder.mkdir(parents=True)
    for name in ("b", "a"):
        write_image(folder / f"{name}.png", noise(12, 16, 3, seed=ord(name)))
    (folder / "notes.txt").write_text("no image")
    monkeypatch.setenv("TAYLORIR_DATA", str(tmp_path))
    images = load_images("Set5")
    assert [item.name for item in images] == ["a", "b"]
    assert np.array_equal(images[0].image, noise(12, 16, 3, seed=ord("a")))
    with pytest.raises(FileNotFoundError, match="no images of dataset 'Set14'"):
        load_images("Set14")


def test_datasets_refuse(monkeypatch):
    monkeypatch.delenv("TAYLORIR_DATA", raising=False)
    assert data_root() is None
    with pytest.raises(ValueError, match="unknown dataset 'Set6'; known: samples"):
        load_images("Set6")
    with pytest.raises(ValueError, match="needs a data root"):
        load_images("Set5")
    with pytest.raises(FileNotFoundError, match="data root is no folder"):
        load_images("Set5", "/nowhere/at/all")


# ------------------------------------------------------------------------------------------------ manifest


def test_manifest_lists_the_sets_and_every_benchmark_image():
    entries = {entry.name: entry for entry in read_manifest()}
    assert set(entries) == set(FOLDERS)
    counts = {name: entry.images for name, entry in entries.items()}
    assert counts == dict(
        Set5=5, Set14=14, BSD100=100, Urban100=100, Manga109=109, DIV2K=800, BSDS400=400, T91=91, Set12=12,
        McMaster=18, classic5=5, RealSRSet=25,
    )  # fmt: skip
    for name, entry in entries.items():
        assert entry.licence and entry.source.startswith("https://") and entry.url.startswith("https://")
        assert entry.folder == FOLDERS[name]
        if name in BENCHMARKS or not entry.archive_hash:
            assert len({image.image for image in entry.hashes}) == entry.images
    tested = {image.sha256 for name in (*BENCHMARKS, *RESTORATION) for image in entries[name].hashes}
    trained = {image.sha256 for name in ("BSDS400", "T91") for image in entries[name].hashes}
    assert len(tested) == 328 + 35 - 1 and not tested & trained  # one picture is in Set12 and in classic5


@pytest.mark.parametrize("entry", read_manifest(), ids=lambda entry: entry.name)
def test_a_card_tells_what_the_manifest_knows_of_a_set(entry):
    card = dataset_card(entry)
    for known in (entry.content, entry.limits, entry.licence.rstrip("."), entry.citation, entry.source):
        assert known and known in card
    assert f"{len(entry.hashes)} of {entry.images} images" in card


def test_a_card_tells_the_sizes_of_the_images(capsys):
    with pytest.raises(SystemExit):
        main(["data", "card", "Set12"])
    assert "* Size: 256 to 512 pixels wide, 256 to 512 high." in capsys.readouterr().out
    assert "* Size: 512 pixels wide, 512 high." in dataset_card(manifest_entry("classic5"))
    assert "* Size: not recorded." in dataset_card(manifest_entry("DIV2K"))


def test_rows_of_bicubic_are_the_images_of_the_manifest():
    with (ROOT / "data" / "results" / "bicubic.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for scale in ("2", "3", "4"):
        measured = {(row["set"], row["image"]) for row in rows if row["upscale"] == scale}
        assert measured == {(n, image.image) for n in BENCHMARKS for image in manifest_entry(n).hashes}


def test_pixel_hash_is_of_the_bytes():
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert pixel_hash(image) == hashlib.sha256(bytes([1, 2, 3, 4, 5, 6])).hexdigest()
    assert pixel_hash(image[:, ::-1]) == hashlib.sha256(bytes([4, 5, 6, 1, 2, 3])).hexdigest()


def entry_of(pictures: dict[str, np.ndarray], url: str = "http://127.0.0.1:9/", **changes) -> SetEntry:
    hashes = tuple(
        ImageHash(name, image.shape[1], image.shape[0], pixel_hash(image), f"files/{name}.png")
        for name, image in pictures.items()
    )
    entry = SetEntry(
        "Set5", "benchmarks", len(pictures), "noise", "few", "https://x", url, "", "none", "nobody", hashes
    )
    return replace(entry, **changes)


def test_check_tells_canonical_from_the_rest(tmp_path, monkeypatch):
    images = {name: noise(6, 8, 3, seed=i) for i, name in enumerate("abcd")}
    monkeypatch.setattr("taylorir.datasets.manifest.read_manifest", lambda: (entry_of(images),))
    folder = tmp_path / "benchmarks" / "Set5"
    folder.mkdir(parents=True)
    write_image(folder / "a.webp", images["a"])  # another format, the same pixels
    changed = images["b"].copy()
    changed[0, 0, 0] ^= 1
    write_image(folder / "b.png", changed)
    (folder / "c.png").write_text("broken")
    write_image(folder / "extra.png", images["a"])
    status = check_root(tmp_path).set_index("image").status.to_dict()
    expected = dict(a="canonical", b="differs", c="unreadable", d="missing", extra="not listed")
    assert status == expected


# ------------------------------------------------------------------------------------------------ download


class Server:
    """A web server on loopback that can cut answers short, ignore ranges, or fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []  # bytes sent before the connection closes, one a request
        self.ranges = True
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.end_headers()
            return
        if request.path not in self.files:
            request.send_error(404)
            return
        content = self.files[request.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        stop = self.cut_after.pop(0) if self.cut_after else len(content)
        request.wfile.write(content[start : start + stop])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_fetch_brings_checks_and_keeps_what_is_there(tmp_path, server):
    images = {name: noise(6, 8, 3, seed=i) for i, name in enumerate("ab")}
    server.files = {f"/files/{name}.png": png(image) for name, image in images.items()}
    folder = download.fetch_set(entry_of(images, server.url), tmp_path)
    assert folder == tmp_path / "benchmarks" / "Set5"
    assert [item.name for item in load_images("Set5", tmp_path)] == ["a", "b"]
    (folder / "b.png").write_bytes(b"damaged since")
    server.requests.clear()
    download.fetch_set(entry_of(images, server.url), tmp_path)
    assert [path for path, _ in server.requests] == ["/files/b.png"]
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["a.png", "b.png"]


def test_the_command_fetches_with_resume_and_finds_canonical_what_it_fetched(
    tmp_path, server, monkeypatch, capsys
):
    images = {name: noise(20, 30, 3, seed=i) for i, name in enumerate("ab")}
    server.files = {f"/files/{name}.png": png(image) for name, image in images.items()}
    server.cut_after = [500]
    monkeypatch.setattr("taylorir.datasets.manifest.read_manifest", lambda: (entry_of(images, server.url),))
    for arguments in (["fetch", "Set5", "--accept-licence", "--data-root"], ["check"]):
        with pytest.raises(SystemExit) as end:
            main(["data", *arguments, str(tmp_path)])
        assert end.value.code == 0
    output = capsys.readouterr()
    assert "Set5 is complete in" in output.out and "Set5: 2 canonical\n" in output.out and output.err == ""
    assert [wanted for _, wanted in server.requests] == [None, "bytes=500-", None]


def test_a_cut_connection_is_resumed(tmp_path, server):
    content = bytes(noise(50_000))
    server.files, server.cut_after = {"/x": content}, [20_000, 20_000]
    download.resuming_download(server.url + "x", tmp_path / "x", partial=tmp_path / "x.part", limit=60_000)
    assert (tmp_path / "x").read_bytes() == content and not (tmp_path / "x.part").exists()
    assert [wanted for _, wanted in server.requests] == [None, "bytes=20000-", "bytes=40000-"]


def test_a_download_goes_on_in_a_later_run(tmp_path, server):
    content = bytes(noise(50_000))
    server.files, server.cut_after = {"/x": content}, [10_000, 0, 0, 0]
    arguments = dict(partial=tmp_path / "x.part", limit=60_000)
    with pytest.raises(OSError, match="10,000 bytes are kept, run it again to go on"):
        download.resuming_download(server.url + "x", tmp_path / "x", **arguments)
    assert not (tmp_path / "x").exists()
    download.resuming_download(server.url + "x", tmp_path / "x", **arguments)
    assert (tmp_path / "x").read_bytes() == content and server.requests[-1][1] == "bytes=10000-"


def test_a_server_without_ranges_and_a_useless_rest_start_anew(tmp_path, server):
    content = bytes(noise(5_000))
    server.files, server.ranges = {"/x": content}, False
    (tmp_path / "x.part").write_bytes(b"z" * 2_000)
    download.resuming_download(server.url + "x", tmp_path / "x", partial=tmp_path / "x.part", limit=6_000)
    assert (tmp_path / "x").read_bytes() == content
    server.ranges = True
    (tmp_path / "x.part").write_bytes(b"z" * 9_000)  # longer than the file: the server answers 416
    download.resuming_download(server.url + "x", tmp_path / "x", partial=tmp_path / "x.part", limit=10_000)
    assert (tmp_path / "x").read_bytes() == content


def test_downloads_are_bounded_and_of_known_kinds(tmp_path, server):
    server.files = {"/x": bytes(5_000)}
    arguments = dict(partial=tmp_path / "x.part", limit=4_999)
    with pytest.raises(ValueError, match=r"5,000 bytes, more than the limit of 4,999"):
        download.resuming_download(server.url + "x", tmp_path / "x", **arguments)
    with pytest.raises(OSError, match="answers 404"):
        download.resuming_download(server.url + "none", tmp_path / "x", **arguments)
    with pytest.raises(ValueError, match=r"only http and https"):
        download.resuming_download("file:///etc/hostname", tmp_path / "x", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_image_with_other_pixels_is_not_kept(tmp_path, server):
    images = {"a": noise(6, 8, 3)}
    server.files = {"/files/a.png": png(noise(6, 8, 3, seed=9))}
    with pytest.raises(ValueError, match="is not the a of Set5: differs"):
        download.fetch_set(entry_of(images, server.url), tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_is_fetched_checked_and_unpacked(tmp_path, server):
    content = zip_of({"HR/0001.png": png(noise(6, 8, 3)), "HR/readme.txt": b"no image"})
    server.files, server.cut_after = {"/hr.zip": content}, [100]
    known = "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()
    entry = entry_of({}, server.url + "hr.zip", name="DIV2K", folder="train", images=1, archive_hash=known)
    download.fetch_set(entry, tmp_path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["0001.png"]
    server.requests.clear()
    download.fetch_set(entry, tmp_path)
    assert not server.requests, "what is complete is not fetched again"


def test_an_archive_of_another_hash_is_not_unpacked(tmp_path, server):
    server.files = {"/hr.zip": zip_of({"HR/0001.png": png(noise(6, 8, 3))})}
    entry = entry_of({}, server.url + "hr.zip", images=1, archive_hash="md5:" + "0" * 32)
    with pytest.raises(ValueError, match="its hash is not md5:000"):
        download.fetch_set(entry, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../../evil.png": b"x"}, "leaves the folder"),
        ({"/tmp/evil.png": b"x"}, "leaves the folder"),
        ({"..\\evil.png": b"x"}, "leaves the folder"),
        ({"a/1.png": b"x", "b/1.png": b"y"}, "occurs twice"),
        ({"1.png": bytes(3_000)}, "unpacks to 3,000 bytes"),
        ({"1.png": b"x", "2.png": bytes(2_000)}, "unpacks to 2,001 bytes"),
    ],
    ids=["climbs", "absolute", "backslash", "twice", "too large", "too large together"],
)
def test_unsafe_archives_are_refused_before_anything_is_written(tmp_path, members, message):
    (tmp_path / "x.zip").write_bytes(zip_of(members))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=message):
        download.unpack_images(tmp_path / "x.zip", tmp_path / "out", limit=2_000)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.zip"]


def test_links_and_damaged_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        download.unpack_images(tmp_path / "x.zip", tmp_path, limit=2_000)
    whole = zip_of({"1.png": bytes(noise(1_000))})
    (tmp_path / "y.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"y\.zip is damaged"):
        download.unpack_images(tmp_path / "y.zip", tmp_path, limit=2_000)
    (tmp_path / "z.zip").write_bytes(whole[:200] + b"!!" + whole[202:])
    with pytest.raises(ValueError, match=r"z\.zip is damaged"):
        download.unpack_images(tmp_path / "z.zip", tmp_path, limit=2_000)
    assert not list(tmp_path.glob("*.png"))


ARCHIVES = {
    "deflate": zipfile.ZIP_DEFLATED,
    "bz2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("offset", [45, 60, 100])
def test_broken_compressed_data_is_one_line(tmp_path, kind, offset):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", ARCHIVES[kind]) as archive:
        archive.writestr("1.png", bytes(noise(1_000)))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[offset : offset + 8] = bytes(byte ^ 0x55 for byte in content[offset : offset + 8])
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"^x\.zip is damaged: .") as error:
        download.unpack_images(tmp_path / "x.zip", tmp_path, limit=2_000)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*.png"))


def test_an_encrypted_archive_is_refused(tmp_path):
    content = bytearray(zip_of({"1.png": b"x"}))
    content[6] |= 1  # the flag, in the member's header and in the directory at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.zip is of no use: '1\.png' is encrypted"):
        download.unpack_images(tmp_path / "x.zip", tmp_path, limit=2_000)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": b"junk", "2.png": b"junk"}, r"1\.png is not an image"),
        ({"1.png": png(noise(6, 8, 3)), "2.png": png(noise(6, 8, 3))[:60]}, r"2\.png is damaged"),
        ({"1.png": png(noise(6, 8, 3))}, "holds 1 images, 2 expected"),
        ({"1.png": png(noise(6, 8, 3)), "../2.png": png(noise(6, 8, 3))}, "leaves the folder"),
    ],
    ids=["junk", "cut", "few", "unsafe"],
)
def test_an_archive_of_something_else_is_no_set_and_does_not_stay(tmp_path, server, members, message):
    content = zip_of(members)
    server.files = {"/hr.zip": content}
    known = "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()
    entry = entry_of({}, server.url + "hr.zip", name="DIV2K", folder="train", images=2, archive_hash=known)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            download.fetch_set(entry, tmp_path)
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(server.requests) == 2, "it is fetched anew: the server may have the right one by then"


@pytest.mark.parametrize("place", ["ftp://127.0.0.1:9/x", "file:///etc/hostname"])
def test_a_redirect_that_leaves_the_web_is_refused(tmp_path, server, place):
    server.redirects = {"/x": place, "/y": server.url + "z"}
    server.files = {"/z": b"content"}
    download.resuming_download(server.url + "y", tmp_path / "y", partial=tmp_path / "y.part", limit=100)
    assert (tmp_path / "y").read_bytes() == b"content"
    with pytest.raises((ValueError, OSError), match=r"only http and https are fetched|answers 302") as error:
        download.resuming_download(server.url + "x", tmp_path / "x", partial=tmp_path / "x.part", limit=100)
    assert not isinstance(error.value, ConnectionError) and not (tmp_path / "x").exists()
    assert len(server.requests) == 3, "it is not tried again"


def test_a_pair_of_restoration_is_the_image_and_what_was_done_to_it():
    hr = noise(20, 24, 3)
    lr, kept = make_pair(hr, 1, degradation="noise25", seed=3)
    assert np.array_equal(kept, hr) and np.array_equal(lr, degrade(hr, 1, "noise25", seed=3))
    lr, kept = make_pair(hr, 2, degradation="jpeg40", grey=True)
    assert np.array_equal(kept, to_grey(hr)) and np.array_equal(lr, degrade(to_grey(hr), 2, "jpeg40"))
