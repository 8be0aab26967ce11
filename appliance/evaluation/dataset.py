"""A data set on disk: photographs of people, and what is stated about them. Reads names, never pictures.

One folder a person:

    DATASET/Ada Byron/anything.jpg      whoever has a folder is a person; folders within are theirs too
    DATASET/groups.csv                  optional: person,ATTRIBUTE,…; an empty cell is "not stated"

or a folder of pictures and a list of pairs, see `read_pairs`.
"""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import ConfigurationError

PICTURES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tif", ".tiff", ".webp", ".heic", ".heif"}
)
"""What the name of a photograph ends with. Whether it is one is found when it is read."""
GROUPS = "groups.csv"
LONGEST_LABEL = 60
MOST_ATTRIBUTES = 12

_SAME = {"yes": True, "same": True, "1": True, "true": True}
_OTHER = {"no": False, "different": False, "0": False, "false": False}


class BadDataset(ConfigurationError):
    """The folder, the groups or the pairs are not laid out as an evaluation needs them."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One file.

    Attributes:
        path: where it is.
        name: relative to the data set, with forward slashes; what reports call it.
        person: index into `Dataset.people`.
    """

    path: Path
    name: str
    person: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photographs of people.

    Attributes:
        name: of the folder.
        people: their names, sorted.
        photographs: by person, and by name within one.
        ignored: how many files there are that are no photographs by their name.
        groups: for each attribute of groups.csv, each person's label, None where it is not stated.
    """

    name: str
    people: Sequence[str]
    photographs: Sequence[Photograph]
    ignored: int = 0
    groups: dict[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, as indices into `Pairs.photographs`, and whether they show the same person."""

    one: int
    other: int
    same: bool


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of photographs whose people have no names: each photograph counts as a person of its own."""

    data: Dataset
    pairs: Sequence[Pair]


def read_dataset(folder: Path) -> Dataset:
    """Find the people and photographs of a folder.

    Args:
        folder: one folder a person.

    Raises:
        BadDataset: it is no such folder, or its groups.csv is wrong.
    """
    _require_folder(folder)
    people: list[str] = []
    photographs: list[Photograph] = []
    ignored = 0
    for home in sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path)):
        mine = list(_files(home))
        pictures = [path for path in mine if is_photograph(path)]
        ignored += len(mine) - len(pictures)
        photographs += [
            Photograph(path, path.relative_to(folder).as_posix(), len(people)) for path in pictures
        ]
        people.append(home.name)
    if not photographs:
        loose = any(path.is_file() and is_photograph(path) for path in folder.iterdir())
        raise BadDataset(
            f"{folder} holds no folder with photographs: give it one folder a person"
            + (", or a list of pairs with --pairs for the pictures that lie in it" if loose else "")
        )
    groups = read_groups(folder / GROUPS, people) if (folder / GROUPS).exists() else {}
    return Dataset(folder.resolve().name, people, photographs, ignored, groups)


def read_groups(path: Path, people: Sequence[str]) -> dict[str, list[str | None]]:
    """What groups.csv says: for each attribute, the label of each person.

    Args:
        path: a UTF-8 file whose first line is `person,ATTRIBUTE,…`; each further line is a person's.
        people: the names of those who have a folder.

    Raises:
        BadDataset: with the number of the line, and never what is written there about somebody.
    """
    rows = _rows(path)
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) < 2 or header[0].lower() != "person" or len(set(header)) != len(header):
        raise BadDataset(f"{path} must begin with a line `person,ATTRIBUTE,…`, each attribute once")
    if len(header) - 1 > MOST_ATTRIBUTES or not all(0 < len(name) <= LONGEST_LABEL for name in header):
        raise BadDataset(f"{path}: at most {MOST_ATTRIBUTES} attributes, of 1 to {LONGEST_LABEL} characters")
    index = {_normal(name): number for number, name in enumerate(people)}
    labels: dict[str, list[str | None]] = {name: [None] * len(people) for name in header[1:]}
    seen = set()
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise BadDataset(f"{path}, line {line}: {len(row)} fields where the first line has {len(header)}")
        number = index.get(_normal(row[0].strip()))
        if number is None or number in seen:
            what = "is listed twice" if number in seen else "has no folder"
            raise BadDataset(f"{path}, line {line}: this person {what}; correct or remove the line")
        seen.add(number)
        for attribute, cell in zip(header[1:], row[1:], strict=True):
            label = cell.strip()
            if len(label) > LONGEST_LABEL:
                raise BadDataset(f"{path}, line {line}: a label is longer than {LONGEST_LABEL} characters")
            labels[attribute][number] = label or None
    return labels


def read_pairs(path: Path, folder: Path) -> Pairs:
    """Read a list of pairs.

    Args:
        path: a CSV file in UTF-8 whose first line is a heading; each further line names two files of
            `folder` and says `yes` or `no`: whether they show the same person.
        folder: where the pictures are.

    Raises:
        BadDataset: with the number of the line.
    """
    _require_folder(folder)
    listed = _Listed(path, folder)
    known: set[frozenset[int]] = set()
    pairs: list[Pair] = []
    for line, row in enumerate(_rows(path)[1:], start=2):
        pair = _pair(row, line, listed)
        two = frozenset((pair.one, pair.other))
        if len(two) == 1:
            raise BadDataset(f"{path}, line {line}: a photograph is no pair with itself")
        if two in known:
            raise BadDataset(f"{path}, line {line}: this pair is listed twice")
        known.add(two)
        pairs.append(pair)
    if not pairs:
        raise BadDataset(f"{path} names no pair")
    # Pictures that no pair names can be enrolled all the same.
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_photograph(file):
            listed.find(file.name, 0)
    photographs = listed.photographs
    return Pairs(Dataset(folder.resolve().name, [each.name for each in photographs], photographs), pairs)


def _pair(row: Sequence[str], line: int, listed: "_Listed") -> Pair:
    if len(row) != 3:
        raise BadDataset(f"{listed.path}, line {line}: a pair is two file names and yes or no")
    label = row[2].strip().lower()
    if label not in _SAME | _OTHER:
        raise BadDataset(f"{listed.path}, line {line}: the third field must be yes or no")
    one, other = (listed.find(name.strip(), line) for name in row[:2])
    return Pair(one, other, (_SAME | _OTHER)[label])


class _Listed:
    """The photographs that a list of pairs names, each once, by where it is and not by how it is written."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.photographs: list[Photograph] = []
        self._folder = folder
        self._base = folder.resolve()
        self._index: dict[str, int] = {}

    def find(self, name: str, line: int) -> int:
        try:
            file = (self._base / name).resolve()
            there = file.is_relative_to(self._base) and file.is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            raise BadDataset(f"{self.path}, line {line}: there is no such file in {self._folder}")
        real = file.relative_to(self._base).as_posix()
        if real not in self._index:
            self._index[real] = len(self.photographs)
            self.photographs.append(Photograph(file, real, len(self.photographs)))
        return self._index[real]


def is_photograph(path: Path) -> bool:
    """Whether a file is a photograph by its name."""
    return path.suffix.lower() in PICTURES and not _hidden(path)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BadDataset(f"{folder} is not a folder: give one that holds a folder with photographs a person")


def _files(home: Path) -> Iterator[Path]:
    for path in sorted(home.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(home).parts):
            yield path


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _rows(path: Path) -> list[list[str]]:
    try:
        # With a byte order mark or without: a spreadsheet writes one.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not CSV in UTF-8"
        raise BadDataset(f"{path} cannot be read: {reason}") from error


def _normal(name: str) -> str:
    # A file system may hand out the same name composed or decomposed.
    return unicodedata.normalize("NFC", name)
