"""A pack's networks as their publishers left them, for a fair comparison. Build time only, as `install`.

CenterFace has to be re-laid all the same, since insightface reads nothing but SCRFD's outputs: what is in
that file is the published network and its decoding. The embedder is the published file, byte for byte.
"""

from pathlib import Path

from appliance.packs.fetch import Progress, extract, fetch
from appliance.packs.install import insightface_manifest
from appliance.packs.manifest import load_manifest
from appliance.packs.verify import read_verified


def lay_out_published(name: str, packs: Path, into: Path, progress: Progress) -> None:
    """Write a folder that insightface's `FaceAnalysis` loads.

    Args:
        name: of an installed pack whose embedder is ArcFace's as published.
        packs: where it is installed; its detector is taken from there, verified.
        into: an empty folder.
        progress: told in a few words what is being done.

    Raises:
        PackDamaged: the pack is not installed, or not what was installed.
        DownloadFailed, WrongHash: the published embedder could not be had.
    """
    manifest = load_manifest(name)
    _, contents = read_verified(packs / name, {manifest.detector.file, "MODEL.LICENSE"})
    (source,) = (each for each in manifest.files if each.id == manifest.embedder.source)
    archive = fetch(source, source_folder=None, progress=progress)
    original = extract(archive, source.kind, source.member, source.member_sha256)
    files = contents | {manifest.embedder.file: original}
    files["manifest.json"] = insightface_manifest(manifest, files)
    for path, data in files.items():
        (into / path).write_bytes(data)
