"""WebDataset shards: the members of a tar file that share a name up to its first dot are one row.

Nothing is unpacked: each row knows where its members' bytes lie, pictures are read from there when
they are decoded. A `.json` member holds the row's fields, other text members are fields named by
their ending; where its media go is said in `tar_media.py`. What systems add to a folder (`._*`,
`__MACOSX/`, `Thumbs.db`, hidden files) belongs to no row.
"""

import json
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from smolvlm.config.problems import shown_path, shown_text
from smolvlm.datasets.rows.readers.json import read_json
from smolvlm.datasets.rows.readers.streams import MAX_ROW_BYTES, oversize_row
from smolvlm.datasets.rows.readers.tar_media import MediaMember
from smolvlm.errors import SampleError
from smolvlm.media.kinds import is_clip_ending, is_picture_ending
from smolvlm.records import ImageRef, VideoRef

MAX_MEMBERS = 20_000_000
MAX_MEDIA_BYTES = 4 << 30
MAX_HEADER_BYTES = 1 << 20
"""Of a long name or a pax header."""
_PADDING_BYTES = 1 << 20
_HEADERS = frozenset(
    {
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    }
)
"""Types of members that tarfile reads whole."""

Member = tuple[str, int, int]
"""(name, offset, size in bytes) within the shard; the offset is `NO_FILE` where nothing lies."""
NO_FILE = -1
_VOLUME_LABEL = b"V"
"""GNU tar's type of a header that only names the archive."""
_LITTER = re.compile(r"thumbs\.db|desktop\.ini|__.*__|__macosx|paxheaders?(\..*)?|@paxheader", re.I)
"""Names of files and folders that archivers and file managers add; so do all that begin with a
dot."""


_BINARY = {
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive (.npz, .pth)",
    b"\x80\x04\x95": "a pickle",
    b"RIFF": "a RIFF file (sound)",
    b"fLaC": "sound (FLAC)",
    b"ID3": "sound (MP3)",
    b"OggS": "an Ogg file",
    b"\x1f\x8b": "gzip data",
    b"%PDF": "a PDF document",
}
"""How members begin that are no text, and what they are."""


class _Member(tarfile.TarInfo):
    """A member whose own header is bounded: tarfile reads long names and pax headers whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue]


def tar_index(path: Path, *, label: str) -> Iterator[tuple[int, bytes]]:
    """Yield (row number, JSON text of its key and members) of a shard; its headers alone are read.

    Raises:
        SampleError: not a plain tar file, cut short, or a row whose members do not lie together.
    """
    number, key, members = 0, "", []
    together = _Together(label)
    try:
        with tarfile.open(path, "r:", tarinfo=_Member) as shard:
            for count, info in enumerate(shard):
                if count >= MAX_MEMBERS:
                    what = f"more than {MAX_MEMBERS:,} members"
                    raise SampleError(what, kind="bad_file", where=label, fix="split the shard")
                if info.isdir() or info.type == _VOLUME_LABEL or is_litter(info.name):
                    continue
                own_key, _ = _split_name(info.name)
                if own_key != key and members:
                    number += 1
                    together.check(key, members, number=number)
                    yield number, _as_json(key, members)
                    members = []
                key = own_key
                is_file = info.isreg() and not info.issparse()
                members.append((info.name, info.offset_data if is_file else NO_FILE, info.size))
            _check_end(path, shard.offset, label=label)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        fix = "give a plain .tar (not compressed: rows are read in any order)"
        what = f"not a tar file, or cut short: {shown_text(str(error))}"
        raise SampleError(what, kind="bad_file", where=label, fix=fix) from None
    if members:
        together.check(key, members, number=number + 1)
        yield number + 1, _as_json(key, members)


class _Together:
    """Notices rows whose members lie apart in the shard: each part would pass for a row.

    Shards that were joined may hold two rows of one name; these have the same endings.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._first: dict[int, tuple[int, frozenset[str]]] = {}
        """Hash of a row's name -> its number, and the endings of its members."""
        self._endings: dict[frozenset[str], frozenset[str]] = {}
        """One of each set of endings, which millions of rows share."""

    def check(self, key: str, members: list[Member], *, number: int) -> None:
        """Raise SampleError if an earlier row of the name has members of other endings."""
        there = frozenset(_split_name(name)[1] for name, _, _ in members)
        there = self._endings.setdefault(there, there)
        earlier, endings = self._first.setdefault(hash(key), (number, there))
        if endings == there:
            return
        what = (
            f"the members of row `{shown_path(key)}` do not lie together: "
            f"{_listed(endings)} at row {earlier:,}, {_listed(there)} at row {number:,}"
        )
        fix = "write the shard in the order of its names: tar --sort=name -cf NEW.tar FOLDER"
        raise SampleError(what, kind="bad_file", where=self._label, fix=fix)


def _listed(endings: frozenset[str]) -> str:
    return ", ".join(shown_path(f".{ending}") for ending in sorted(endings)[:3])


def _check_end(path: Path, end: int, *, label: str) -> None:
    """Refuse a shard whose members are not followed by the block of zeros that ends a tar file.

    `tarfile` takes a header that is cut off or damaged, after the first, for the end, and would
    lose what follows.
    """
    with path.open("rb") as stream:
        stream.seek(end)
        end_mark = stream.read(tarfile.BLOCKSIZE)
        if end_mark == bytes(tarfile.BLOCKSIZE):
            _check_padding(stream, label=label)
        else:
            what = (
                f"the shard is cut short, or damaged at byte {end:,}: no member and no end mark "
                f"there"
            )
            raise SampleError(
                what, kind="bad_file", where=label, fix="copy it again, or write it anew"
            )


def _check_padding(stream: BinaryIO, *, label: str) -> None:
    """Refuse a shard with anything behind its end mark: shards that `cat` joined lie so."""
    while block := stream.read(_PADDING_BYTES):
        if block.strip(b"\0"):
            what = "more data behind the shard's end mark, which no reader would find"
            fix = "join shards with `tar --concatenate`, or name them one by one"
            raise SampleError(what, kind="bad_file", where=label, fix=fix)


def _split_name(name: str) -> tuple[str, str]:
    """Return ("images/0001", "jpg") for "images/0001.jpg": the ending begins at the last folder's
    first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def is_litter(name: str) -> bool:
    """Say whether a member belongs to no row: hidden, or added by a file manager or an archiver."""
    parts = [part for part in PurePosixPath(name).parts if part != ".."]
    return any(part.startswith(".") or _LITTER.fullmatch(part) for part in parts)


def _as_json(key: str, members: list[Member]) -> bytes:
    return json.dumps({"key": key, "members": members}).encode()


def read_tar_row(
    path: Path,
    row: Mapping[str, Any],
    *,
    not_read: Collection[str] = (),
    max_text_bytes: int = MAX_ROW_BYTES,
) -> tuple[dict[str, object], list[MediaMember]]:
    """Return the fields of a row's text members, and its media, named and not read.

    Args:
        path: the shard.
        row: as `tar_index` wrote it.
        not_read: endings of members to leave alone, `npy` or `depth.npy`.
        max_text_bytes: of all its text members.

    Raises:
        SampleError: a member is too large, is not the text that it should be, or two members give
            the same field; or all members are media.
    """
    fields: dict[str, object] = {}
    given_by: dict[str, str] = {}
    json_name = ""
    media: list[MediaMember] = []
    text_bytes = 0
    for name, offset, size, ending in _read_members(row["members"], not_read):
        kind = ending.rpartition(".")[2]
        if is_picture_ending(kind) or is_clip_ending(kind):
            _check_size(size, MAX_MEDIA_BYTES, name)
            ref = (ImageRef if is_picture_ending(kind) else VideoRef)(
                path=path, span=(offset, size)
            )
            media.append(MediaMember(name=name, ending=ending, ref=ref))
            continue
        text_bytes += size
        if text_bytes > max_text_bytes:
            raise oversize_row(text_bytes, max_text_bytes)
        if kind == "json":
            if json_name:
                raise _two_rows(f"two .json members, `{json_name}` and `{shown_path(name)}`")
            json_name = shown_path(name)
        for field, value in _text_fields(path, name, offset, size).items():
            if field in fields:
                both = f"`{given_by[field]}` and `{shown_path(name)}`"
                raise _two_rows(f"two members give `{shown_text(field)}`, {both}")
            fields[field], given_by[field] = value, shown_path(name)
    _check_names(media)
    if media and not fields:
        what = f"row `{shown_path(row['key'])}` has media and no text"
        fix = (
            "members share their folder and their name up to the first dot: put what is asked and "
            "answered beside them, as `NAME.json`"
        )
        raise SampleError(what, fix=fix)
    return fields, media


def _read_members(
    members: Sequence[Member], not_read: Collection[str]
) -> Iterator[tuple[str, int, int, str]]:
    """Yield (name, offset, size, ending) of the members that are not left alone."""
    for name, offset, size in members:
        _, ending = _split_name(name)
        if ending in not_read or ending.rpartition(".")[2] in not_read:
            continue
        if offset == NO_FILE:
            raise _no_file(name)
        yield name, offset, size, ending


def _check_names(media: list[MediaMember]) -> None:
    seen: set[str] = set()
    for member in media:
        if member.name in seen:
            what = f"two members of one name, `{shown_path(member.name)}`"
            raise SampleError(what, fix="write the shard anew: names are how a row is known")
        seen.add(member.name)


def _no_file(name: str) -> SampleError:
    what = f"member `{shown_path(name)}` is no plain file: a link, a sparse file or a device"
    fix = "write the shard anew with what links lead to: tar -h --hard-dereference -cf NEW.tar ..."
    return SampleError(what, fix=fix)


def _two_rows(what: str) -> SampleError:
    fix = (
        "a row's members share their name up to its first dot: write `22_05.json` for "
        "`22.05.json`, and each field once"
    )
    return SampleError(f"one row of the shard has {what}", fix=fix)


def _text_fields(path: Path, name: str, offset: int, size: int) -> dict[str, object]:
    _, ending = _split_name(name)
    shown = shown_path(f".{ending}")
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    binary = next((kind for begin, kind in _BINARY.items() if data.startswith(begin)), None)
    if b"\0" in data and ending.rpartition(".")[2] != "json":
        raise _no_text(name, ending, binary or "binary data")
    try:
        text = data.decode("utf-8-sig")
        if ending.rpartition(".")[2] != "json":
            return {ending: text}
        fields = read_json(text)
    except UnicodeDecodeError:
        raise _no_text(name, ending, binary or "no UTF-8 text") from None
    except ValueError as error:  # no JSON, or too many digits
        what = f"member {shown} cannot be read: {shown_text(str(error))}"
        raise SampleError(what, fix="write the shard anew") from None
    if not isinstance(fields, dict):
        raise SampleError(f"member {shown} is no JSON object", fix="write the row as {...}")
    return fields


def _no_text(name: str, ending: str, kind: str) -> SampleError:
    fix = (
        f"leave it out with `not_read: [{shown_path(ending)}]` on the source; or write a picture "
        "or a clip with its usual ending, and text as UTF-8"
    )
    return SampleError(
        f"member `{shown_path(name)}` is {kind}, and no row is made of that", fix=fix
    )


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        what = f"member `{shown_path(name)}` has {size:,} bytes, more than {limit:,}"
        raise SampleError(what, fix="shrink it")
