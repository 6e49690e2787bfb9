"""Fetch an image set: resumed where it stopped, bounded in size, checked, and unpacked without trust."""

from __future__ import annotations

import hashlib
import http.client
import lzma
import os
import shutil
import struct
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from taylorir.datasets.manifest import CANONICAL, ImageHash, SetEntry, check_file, set_files
from taylorir.images import READABLE_SUFFIXES, read_image
from taylorir.rows import one_line, write_atomic

MAX_FILE_BYTES = 16 * 2**20  # of one image; the largest in the manifest has 2.4 MB
MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_UNPACKED_BYTES = 6 * 2**30
ATTEMPTS = 4
TIMEOUT_SECONDS = 30
_BLOCK = 2**20
# what the readers of the kinds of compression in a zip raise for data that is none
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, struct.error)


def fetch_set(entry: SetEntry, root: Path, *, progress: bool = False) -> Path:
    """Bring a set to ``root/<folder>/<set>``; images that are there and right stay.

    Args:
        entry: from the manifest.
        root: the data root; made when missing.
        progress: show a bar.

    Returns:
        The set's folder.

    Raises:
        ValueError: something fetched is not what the manifest says, or is unsafe. It is not kept.
        OSError: the network or the disk failed; a further call resumes.
    """
    target = root / entry.folder / entry.name
    work = root / ".downloads" / entry.name
    for folder in (target, work):
        folder.mkdir(parents=True, exist_ok=True)
    if entry.archive_hash:
        if len(set_files(entry, root)) < entry.images:
            name = PurePosixPath(urllib.parse.urlparse(entry.url).path).name
            archive = _retrieve(entry.url, work / name, entry.archive_hash, MAX_ARCHIVE_BYTES, progress)
            try:
                _unpack_set(entry, archive, target, progress)
            except ValueError:
                shutil.rmtree(work)
                raise
    else:
        present = set_files(entry, root)
        bar = tqdm(entry.hashes, desc=entry.name, unit="image", disable=not progress, leave=False)
        for image in bar:
            path = present.get(image.image)
            if path is None or check_file(path, image) != CANONICAL:
                _fetch_image(entry, image, target, work)
    shutil.rmtree(work)
    if len(set_files(entry, root)) < entry.images:
        raise ValueError(f"{entry.name} has {len(set_files(entry, root))} images, {entry.images} expected")
    return target


def _unpack_set(entry: SetEntry, archive: Path, target: Path, progress: bool) -> None:
    """Bring the images of an archive to ``target`` once all of them are there and can be read."""
    unpacked = archive.parent / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    unpack_images(archive, unpacked, limit=MAX_UNPACKED_BYTES)
    files = sorted(unpacked.iterdir())
    if len(files) < entry.images:
        raise ValueError(f"{archive.name} holds {len(files)} images, {entry.images} expected")
    for file in tqdm(files, desc=entry.name, unit="image", disable=not progress, leave=False):
        read_image(file)
    for file in files:
        os.replace(file, target / file.name)


def _fetch_image(entry: SetEntry, image: ImageHash, target: Path, work: Path) -> None:
    url = entry.url + urllib.parse.quote(image.file)
    name = PurePosixPath(image.file).name
    file = _retrieve(url, work / name, None, MAX_FILE_BYTES, False)
    verdict = check_file(file, image)
    if verdict != CANONICAL:
        file.unlink()
        raise ValueError(f"{url} is not the {image.image} of {entry.name}: {verdict} (SHA-256 of its pixels)")
    os.replace(file, target / name)


def _retrieve(url: str, path: Path, known_hash: str | None, limit: int, progress: bool) -> Path:
    """:func:`resuming_download`, unless the file is there; one of another hash (``md5:...``) is removed."""
    if not path.exists():
        partial = path.with_name(path.name + ".part")
        resuming_download(url, path, partial=partial, limit=limit, progress=progress)
    if known_hash is not None:
        algorithm, _, digest = known_hash.partition(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
        if found.hexdigest() != digest:
            path.unlink()
            raise ValueError(f"{url} is not the file that is expected: its hash is not {known_hash}")
    return path


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Redirects stay on the web: urllib would follow one to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check_scheme(newurl)
        except ValueError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_HttpOnly)


def _check_scheme(url: str) -> None:
    if urllib.parse.urlparse(url).scheme not in ("http", "https"):
        raise ValueError(f"only http and https are fetched, not {url}")


def resuming_download(url: str, output: Path, *, partial: Path, limit: int, progress: bool = False) -> None:
    """Download to ``partial``, from where it ends already, and move it to ``output`` when complete.

    Args:
        url: http or https.
        output: the complete file.
        partial: what there is so far; kept when the connection breaks, removed when it is of no use.
        limit: most bytes that the whole file may have.
        progress: show a bar.

    Raises:
        ValueError: another kind of URL, also behind a redirect, or a file larger than ``limit``.
        OSError: no complete answer after several attempts.
    """
    _check_scheme(url)
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            if _continue(url, partial, limit, progress):
                os.replace(partial, output)
                return
            reason = "the connection closed early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the partial file is no beginning of what the server has
                partial.unlink(missing_ok=True)
            elif error.code < 500:
                raise OSError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", None) or error)
    size = partial.stat().st_size if partial.exists() else 0
    raise OSError(f"{url}: {reason}; {size:,} bytes are kept, run it again to go on")


def _continue(url: str, partial: Path, limit: int, progress: bool) -> bool:
    """One request from the end of ``partial`` on; True when the file is complete."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        if total is not None and total > limit:
            partial.unlink(missing_ok=True)
            raise ValueError(f"{url} has {total:,} bytes, more than the limit of {limit:,}")
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=not progress, leave=False)
        with partial.open("ab" if resumed else "wb") as file, bar:
            while block := answer.read(_BLOCK):
                have += len(block)
                if have > limit:
                    break
                file.write(block)
                bar.update(len(block))
    if have > limit:
        partial.unlink()
        raise ValueError(f"{url} has more bytes than the limit of {limit:,}")
    return total is None or have == total


def unpack_images(archive: Path, target: Path, *, limit: int) -> int:
    """Write the images of a zip archive to one folder, each under its bare name.

    Nothing else is unpacked. Before the first file is written, the whole archive is refused if a name is
    absolute or climbs, a member is a link or encrypted, two images share a name, or the sizes add up to more
    than ``limit``; while unpacking, no member may be larger than it claims.

    Args:
        archive: the zip file.
        target: an existing folder.
        limit: bytes in all.

    Returns:
        How many images were written.

    Raises:
        ValueError: the archive is damaged or unsafe.
        OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            _check_members(archive, members, limit)
            images = [m for m in members if PurePosixPath(m.filename).suffix.lower() in READABLE_SUFFIXES]
            for member in images:
                data = _read_member(content, member)
                if len(data) != member.file_size:
                    raise ValueError(f"{archive.name}: {member.filename} is not as large as it claims")
                write_atomic(
                    target / PurePosixPath(member.filename).name, lambda file, data=data: file.write(data)
                )
            return len(images)
    except _DAMAGE as error:
        raise ValueError(f"{archive.name} is damaged: {one_line(error)}") from None


def _read_member(content: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """What a member holds, and one byte more than it claims if it holds more."""
    try:
        with content.open(member) as source:
            return source.read(member.file_size + 1)
    except OSError as error:  # so bz2 says that data is no bz2
        raise zipfile.BadZipFile(one_line(error)) from None


def _check_members(archive: Path, members: list[zipfile.ZipInfo], limit: int) -> None:
    names = set()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename or path.name in ("", "."):
            raise ValueError(f"{archive.name} is unsafe: the name {member.filename!r} leaves the folder")
        if member.flag_bits & 0x1:
            raise ValueError(f"{archive.name} is of no use: {member.filename!r} is encrypted")
        if (member.external_attr >> 16) & 0o170000 == 0o120000:
            raise ValueError(f"{archive.name} is unsafe: {member.filename!r} is a link")
        if member.file_size > 2**28:
            raise ValueError(f"{archive.name} is unsafe: {member.filename!r} has {member.file_size:,} bytes")
        if path.suffix.lower() in READABLE_SUFFIXES:
            if path.name in names:
                raise ValueError(f"{archive.name} is unsafe: the name {path.name!r} occurs twice")
            names.add(path.name)
    total = sum(member.file_size for member in members)
    if total > limit:
        raise ValueError(f"{archive.name} is unsafe: it unpacks to {total:,} bytes, limit {limit:,}")
