"""WebDataset shards as fuzzed inputs.

In: a seeded generator and an empty folder. Out: a shard written there, and what is known of its
rows. A shard is changed as a list of members (names, order, doubled, links, litter, ways to write
long names) or as bytes; what a damaged one holds is found by a reader that trusts no damaged
header.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from fuzz import references
from fuzz.base_rows import FORMATS, Row, base_row
from fuzz.checked import Checker
from fuzz.damage import damaged
from fuzz.judge import ExpectedRow, judge_rows
from fuzz.references import Member
from fuzz.row_changes import changed_row

MAX_ROWS = 4
DAMAGED = 0.35
LITTER = ("._{}.png", ".DS_Store", "__MACOSX/{}.png", "Thumbs.db", "a/desktop.ini")
_IS_LITTER = re.compile(r"(^|/)(\.(?!\.?(/|$))[^/]*|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)")
FORMATS_OF_TAR = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A member as it is written."""

    member: Member
    type: bytes = tarfile.REGTYPE
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shard:
    entries: list[Entry]
    is_same: bool = True
    is_moved: bool = False


def fuzz_tars(random: Random, folder: Path, checker: Checker) -> tuple[list[str], int]:
    """Make a shard, check it, and return its faults and how many rows were accepted."""
    name = random.choice([name for name in FORMATS if name != "caption"])
    shard = _Shard(entries=[])
    first = random.randrange(1 << 11)
    for number in range(random.randrange(1, MAX_ROWS + 1)):
        entries, is_same, is_moved = _row_entries(name, first + number, random)
        shard = _Shard(
            entries=[*shard.entries, *entries],
            is_same=shard.is_same and is_same,
            is_moved=shard.is_moved or is_moved,
        )
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        if shard.entries:
            shard = random.choice(EDITS)(shard, random)
    data = _written(shard.entries, random)
    members: Sequence[Member] | None = [entry.member for entry in shard.entries]
    if random.random() < DAMAGED:
        data = damaged(data, random)
        members = references.tar_members(data)
        shard = replace(shard, is_same=False)
    elif random.random() < 0.05:
        data, members = data + data, [*(members or ()), *(members or ())]
        shard = replace(shard, is_same=False)
    path = folder / "shard.tar"
    path.write_bytes(data)
    checked = checker({"json_path": path.name}, folder)
    faults = list(judge_rows(checked, _expected(members, shard)))
    return faults, sum(row.is_accepted for row in checked.rows)


def _row_entries(name: str, number: int, random: Random) -> tuple[list[Entry], bool, bool]:
    """Return the members of one row: its fields, and its pictures under names of its own."""
    base = base_row(name, number, random)
    key = f"{random.choice(('', 'a/', 'a/b/'))}{number:04d}"
    base_name = key.rpartition("/")[2]
    is_listed = name == "blocks" or random.random() < 0.6
    row = json.loads(_renamed(json.dumps(_with_list(base.row)), base.pictures, base_name))
    if not is_listed:
        row = {own: value for own, value in row.items() if not own.startswith(("im", "picture"))}
    changed = changed_row(row, random) if random.random() < 0.5 else None
    fields: Any = row if changed is None else changed.row
    shown = [
        Member(name=f"{key}.{picture}", data=data)
        for picture, data in base.pictures.items()
        if is_listed is False or f"{base_name}.{picture}" in json.dumps(row)
    ]
    members = [*_fields(key, fields, random), *shown]
    return (
        [Entry(member=member) for member in members],
        changed is None or changed.is_same,
        changed is not None and changed.is_moved,
    )


def _with_list(row: Row) -> Row:
    """Return a row with its pictures under a key by which shards list them."""
    named = [value for key, value in row.items() if key.startswith(("im", "picture"))]
    if not named or "images" in row:
        return row
    rest = {key: value for key, value in row.items() if not key.startswith(("im", "picture"))}
    return rest | {"images": named}


def _renamed(text: str, pictures: Any, key: str) -> str:
    for picture in pictures:
        text = text.replace(f'"{picture}"', f'"{key}.{picture}"')
    return text


def _fields(key: str, row: Any, random: Random) -> list[Member]:
    """Return a row's fields as one member, or plain texts as one each."""
    is_plain = isinstance(row, dict) and {*row} == {"question", "answer"}
    if is_plain and all(isinstance(value, str) for value in row.values()) and random.random() < 0.5:
        return [
            Member(name=f"{key}.{field}", data=text.encode(errors="replace"))
            for field, text in row.items()
        ]
    return [Member(name=f"{key}.json", data=json.dumps(row).encode())]


def _written(entries: Sequence[Entry], random: Random) -> bytes:
    file = io.BytesIO()
    tar_format = random.choice(FORMATS_OF_TAR)
    try:
        with tarfile.open(fileobj=file, mode="w", format=tar_format) as shard:
            _add(shard, entries)
    except ValueError:  # a name that the oldest way of writing does not hold
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as shard:
            _add(shard, entries)
    return file.getvalue()


def _add(shard: tarfile.TarFile, entries: Sequence[Entry]) -> None:
    for entry in entries:
        info = tarfile.TarInfo(entry.member.name)
        info.type, info.linkname = entry.type, entry.link
        info.size = len(entry.member.data) if entry.type == tarfile.REGTYPE else 0
        shard.addfile(info, io.BytesIO(entry.member.data))


Edit = Callable[[_Shard, Random], _Shard]


def _add_litter(shard: _Shard, random: Random) -> _Shard:
    at = random.randrange(len(shard.entries) + 1)
    name = random.choice(LITTER).format(f"{random.randrange(9)}")
    litter = Entry(member=Member(name=name, data=b"\0\5\x16\7 litter"))
    return replace(shard, entries=[*shard.entries[:at], litter, *shard.entries[at:]])


def _add_folder(shard: _Shard, random: Random) -> _Shard:
    folder = Entry(member=Member(name=f"a{random.randrange(9)}", data=b""), type=tarfile.DIRTYPE)
    return replace(shard, entries=[folder, *shard.entries])


def _lengthen_names(shard: _Shard, random: Random) -> _Shard:
    begin = random.choice(("long/" * 40, "é/", "日本/" * 30, "with space/"))
    return replace(
        shard,
        entries=[
            replace(entry, member=replace(entry.member, name=f"{begin}{entry.member.name}"))
            for entry in shard.entries
        ],
    )


def _shuffle(shard: _Shard, random: Random) -> _Shard:
    entries = random.sample(shard.entries, len(shard.entries))
    return replace(shard, entries=entries, is_same=False, is_moved=True)


def _drop(shard: _Shard, random: Random) -> _Shard:
    at = random.randrange(len(shard.entries))
    return replace(shard, entries=shard.entries[:at] + shard.entries[at + 1 :], is_same=False)


def _double(shard: _Shard, random: Random) -> _Shard:
    at = random.randrange(len(shard.entries))
    entries = [*shard.entries[:at], shard.entries[at], *shard.entries[at:]]
    return replace(shard, entries=entries, is_same=False)


def _rename(shard: _Shard, random: Random) -> _Shard:
    at = random.randrange(len(shard.entries))
    name = shard.entries[at].member.name
    stem, _, ending = name.partition(".")
    new = random.choice(
        (
            *(f"{stem}x.{ending}", f"{stem}.x.{ending}", name.upper(), f"{stem}.npy", stem),
            *(f"/{name}", f"../{name}", f"./{name}", f"{stem}.json", f"{stem}.png", f"{stem}.PNG"),
            *(f"{stem}.{ending}.bak", f".{name}", f"{stem}.txt", f"{stem}.jpg", f"{stem}.mp4"),
            *(f"x/{name}", f"{stem}. {ending}", f"{name}\u200b", "." + ending, ""),
        )
    )
    entries = list(shard.entries)
    entries[at] = replace(entries[at], member=replace(entries[at].member, name=new))
    return replace(shard, entries=entries, is_same=False, is_moved=True)


def _link(shard: _Shard, random: Random) -> _Shard:
    """Write a member as a link to another of the same bytes, as tar does of linked files."""
    at = random.randrange(len(shard.entries))
    entry = shard.entries[at]
    kind = random.choice((tarfile.LNKTYPE, tarfile.SYMTYPE))
    store = Entry(member=replace(entry.member, name=f"store/{entry.member.name}"))
    entries = list(shard.entries)
    entries[at] = replace(entry, type=kind, link=store.member.name)
    if random.random() < 0.5:
        entries.insert(0, store)
    return replace(shard, entries=entries, is_same=False)


def _odd_type(shard: _Shard, random: Random) -> _Shard:
    at = random.randrange(len(shard.entries))
    entries = list(shard.entries)
    odd = random.choice((tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"M", b"9"))
    entries[at] = replace(entries[at], type=odd)
    return replace(shard, entries=entries, is_same=False)


KEPT: tuple[Edit, ...] = (_add_litter, _add_folder, _lengthen_names)
EDITS: tuple[Edit, ...] = (*KEPT, _shuffle, _drop, _double, _rename, _rename, _link, _odd_type)


def _expected(members: Sequence[Member] | None, shard: _Shard) -> list[ExpectedRow] | None:
    """Return the rows that neighbouring members of one name make; None if the shard is damaged."""
    if members is None:
        return None
    folders = {entry.member.name for entry in shard.entries if entry.type == tarfile.DIRTYPE}
    kept = [
        member
        for member in members
        if member.name not in folders and not _IS_LITTER.search(member.name)
    ]
    return [
        ExpectedRow(value=_row_of(list(own)), is_same=shard.is_same, is_moved=shard.is_moved)
        for _, own in groupby(kept, key=lambda member: _key(member.name))
    ]


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _row_of(members: Sequence[Member]) -> Any:
    row: Row = {}
    for member in members:
        ending = member.name.rpartition("/")[2].partition(".")[2].lower()
        kind = ending.rpartition(".")[2]
        if kind == "json":
            fields = references.json_value(member.data)
            if not isinstance(fields, dict):
                return references.UNREADABLE
            row |= fields
        else:
            is_text = not member.data.startswith((b"\x89PNG", b"\0"))
            row[member.name] = member.data.decode(errors="replace") if is_text else member.data
    return row
