"""WebDataset shards: the members of a tar file that share a name up to its first dot are one row.

Nothing is unpacked: each row knows where its members' bytes lie, pictures are read from there when
they are decoded. A `.json` member holds the row's fields, other text members are fields named by
their ending; where its media go is said in `tar_media.py`. What systems add to a folder (`._*`,
`__MACOSX/`, `Thumbs.db`, hidden files) belongs to no row.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from smolvlm.config.problems import shown_path, shown_text
from smolvlm.datasets.rows.readers.json import read_json
from smolvlm.datasets.rows.readers.tar_media import MediaMember
from smolvlm.errors import SampleError
from smolvlm.media.kinds import is_clip_ending, is_picture_ending
from smolvlm.records import ImageRef, VideoRef

MAX_MEMBERS = 20_000_000
MAX_TEXT_BYTES = 16 << 20
MAX_MEDIA_BYTES = 4 << 30

Member = tuple[str, int, int]
"""(name, offset, size in bytes) within the shard."""
_LITTER = re.compile(r"thumbs\.db|desktop\.ini|__.*__|__macosx|paxheaders?(\..*)?|@paxheader", re.I)
"""Names of files and folders that archivers and file managers add; so do all that begin with a
dot."""


def tar_index(path: Path, *, label: str) -> Iterator[tuple[int, bytes]]:
    """Yield (row number, JSON text of its key and members) of a shard; its headers alone are read.

    Raises:
        SampleError: not a plain tar file, cut short, or a member without a name's ending.
    """
    number, key, members = 0, "", []
    try:
        with tarfile.open(path, "r:") as shard:
            for count, info in enumerate(shard):
                if count >= MAX_MEMBERS:
                    what = f"more than {MAX_MEMBERS:,} members"
                    raise SampleError(what, kind="bad_file", where=label, fix="split the shard")
                if not info.isreg() or is_litter(info.name):
                    continue
                own_key, _ = _split_name(info.name)
                if own_key != key and members:
                    number += 1
                    yield number, _as_json(key, members)
                    members = []
                key = own_key
                members.append((info.name, info.offset_data, info.size))
            _check_end(path, shard.offset, label=label)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        fix = "give a plain .tar (not compressed: rows are read in any order)"
        what = f"not a tar file, or cut short: {shown_text(str(error))}"
        raise SampleError(what, kind="bad_file", where=label, fix=fix) from None
    if members:
        yield number + 1, _as_json(key, members)


def _check_end(path: Path, end: int, *, label: str) -> None:
    """Refuse a shard whose members are not followed by the block of zeros that ends a tar file.

    `tarfile` takes a header that is cut off or damaged, after the first, for the end, and would
    lose what follows.
    """
    with path.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            what = (
                f"the shard is cut short, or damaged at byte {end:,}: no member and no end mark "
                f"there"
            )
            raise SampleError(
                what, kind="bad_file", where=label, fix="copy it again, or write it anew"
            )


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
    path: Path, row: Mapping[str, list[Member]]
) -> tuple[dict[str, object], list[MediaMember]]:
    """Return the fields of a row's text members, and its media, named and not read.

    Args:
        path: the shard.
        row: as `tar_index` wrote it.

    Raises:
        SampleError: a member is too large, is not the text that it should be, or two members give
            the same field.
    """
    fields: dict[str, object] = {}
    given_by: dict[str, str] = {}
    json_name = ""
    media: list[MediaMember] = []
    for name, offset, size in row["members"]:
        _, ending = _split_name(name)
        kind = ending.rpartition(".")[2]
        if is_picture_ending(kind) or is_clip_ending(kind):
            _check_size(size, MAX_MEDIA_BYTES, name)
            ref = (ImageRef if is_picture_ending(kind) else VideoRef)(
                path=path, span=(offset, size)
            )
            media.append(MediaMember(name=name, ending=ending, ref=ref))
            continue
        _check_size(size, MAX_TEXT_BYTES, name)
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
    return fields, media


def _check_names(media: list[MediaMember]) -> None:
    seen: set[str] = set()
    for member in media:
        if member.name in seen:
            what = f"two members of one name, `{shown_path(member.name)}`"
            raise SampleError(what, fix="write the shard anew: names are how a row is known")
        seen.add(member.name)


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
    try:
        text = data.decode("utf-8-sig")
        if ending.rpartition(".")[2] != "json":
            return {ending: text}
        fields = read_json(text)
    # no UTF-8, no JSON, a number of too many digits, nested too deeply
    except (ValueError, RecursionError) as error:
        what = f"member {shown} cannot be read: {shown_text(str(error))}"
        raise SampleError(what, fix="write the shard anew") from None
    if not isinstance(fields, dict):
        raise SampleError(f"member {shown} is no JSON object", fix="write the row as {...}")
    return fields


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        what = f"member `{shown_path(name)}` has {size:,} bytes, more than {limit:,}"
        raise SampleError(what, fix="shrink it")
