"""The model card of a pack: where its networks come from, what may be done with them, what is unknown."""

from collections.abc import Mapping

from appliance.packs.manifest import Calibration, Manifest, Source


def model_card(manifest: Manifest, proofs: Mapping[str, str]) -> str:
    """The text of `README.md` in a pack.

    Args:
        manifest: of the pack.
        proofs: network to how near its converted form is to the original.

    Returns:
        Markdown.
    """
    parts = [f"# Pack `{manifest.name}`", manifest.description]
    if manifest.needs_acknowledgement:
        parts.append(f"**To be acknowledged by the site:** {manifest.acknowledgement}")
    parts += ["## Sources", *[_source(source) for source in manifest.files]]
    parts += [
        "## Networks",
        _networks(manifest, proofs),
        "## Measured",
        _measured(manifest.calibration),
    ]
    return "\n\n".join(parts) + "\n"


def _source(source: Source) -> str:
    known = source.training_data or "not stated by the publisher. So neither is the consent of those in it."
    excluded = " **Excludes this use without more.**" if source.excludes_use else ""
    return (
        f"- `{source.member.rpartition('/')[2]}` (SHA-256 `{source.member_sha256}`), in {source.package} "
        f"{source.version} ({source.registry}).\n"
        f"  - Licence as published: {source.licence}. {source.allows}{excluded}\n"
        f"  - Training data: {known}"
    )


def _networks(manifest: Manifest, proofs: Mapping[str, str]) -> str:
    detector, embedder = manifest.detector, manifest.embedder
    width, height = detector.input_size
    chip = f"{embedder.chip} x {embedder.chip} pixels, embedding of {embedder.dimension} values"
    lines = [
        f"- `{detector.file}`: {proofs['detector']}. Input {width} x {height} pixels.",
        f"- `{embedder.file}`: {proofs['embedder']}. Input {chip}.",
    ]
    if manifest.liveness is not None:
        lines.append(f"- `{manifest.liveness.file}`: {proofs['liveness']}.")
    return "\n".join(lines)


def _measured(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Not yet: this pack has no thresholds."
    about = (
        f"On {calibration.data}, {calibration.date}: {calibration.images} photographs of "
        f"{calibration.people} people; no face found in {calibration.fta:.2%}. Templates of five against one "
        f"probe: {calibration.genuine} genuine and {calibration.impostor} impostor comparisons, with "
        f"{calibration.templates} templates of {calibration.template_people} people. Rates differ between "
        "groups of people and between cameras; these photographs say little of either."
    )
    lines = [
        about,
        "",
        "| FMR of an attempt | frames | threshold | FNMR of one probe (95 % over people) |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.fmr:g} | {each.frames} | {each.threshold:.4f} | "
        f"{each.fnmr:.2%} ({each.low:.2%} to {each.high:.2%}) |"
        for each in calibration.thresholds
    ]
    lines += ["", "The threshold for three frames is that of one frame at a third of the rate (union bound)."]
    return "\n".join(lines)
