"""Three official portraits, for the demo and the tests: fetched by hash, never part of the product.

They are in the source package of `face_recognition` on PyPI: two of one person, one of another.
"""

import os
import tempfile
from pathlib import Path

from appliance.packs.fetch import Package, Progress, downloads, extract, fetch, file_sha256

_PACKAGE = Package(
    registry="pypi",
    package="face_recognition",
    version="1.3.0",
    kind="sdist",
    archive_sha256="5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
)
_INSIDE = "face_recognition-1.3.0/tests/test_images"
_PORTRAITS = {
    "obama.jpg": "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
    "obama2.jpg": "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
    "biden.jpg": "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
}


def portraits(progress: Progress, *, source_folder: Path | None = None) -> dict[str, Path]:
    """The portraits by name: `obama.jpg` and `obama2.jpg` are one person, `biden.jpg` is another.

    Args:
        progress: told in a few words what is being done.
        source_folder: where to look for the package by hash instead of asking the registry.

    Returns:
        Name to a kept file whose hash was checked just now.

    Raises:
        DownloadFailed: not kept yet, and neither registry nor folder has it.
        WrongHash: what came is not what was pinned.
    """
    folder = downloads().parent / "portraits"
    wanted = {name: folder / name for name in _PORTRAITS}
    if all(path.is_file() and file_sha256(path) == _PORTRAITS[name] for name, path in wanted.items()):
        return wanted
    archive = fetch(_PACKAGE, source_folder=source_folder, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in wanted.items():
        data = extract(archive, _PACKAGE.kind, f"{_INSIDE}/{name}", _PORTRAITS[name])
        descriptor, part = tempfile.mkstemp(prefix=".part-", dir=folder)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(part).rename(path)
    return wanted
