"""What a report holds. Its JSON is report.json; keys may be added: those it does not
know, a reader passes over.

Rates are fractions from 0 to 1, intervals are of 95 % unless `level` says otherwise, scores are cosines. The
terms are those of ISO/IEC 19795-1.
"""

import json
import math
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from appliance.errors import DrempelError


class BadReport(DrempelError, ValueError):
    """A text that is no report.json of ours."""


def written(text: str) -> str:
    """A name as a report holds it: what is not UTF-8 is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _writable(text: object) -> object:
    # A file name need not be UTF-8; Python then holds lone surrogates, which no JSON and no page can.
    return written(text) if isinstance(text, str) else text


def _plain(array: Any) -> object:
    return array.tolist() if hasattr(array, "tolist") else array


Name = Annotated[str, BeforeValidator(_writable)]
"""Text from outside: the name of a file, a person, a group. Nothing in it can be trusted."""
Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Face = Annotated[str, Field(pattern=r"\Adata:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}\z")]
"""A small picture, in the page itself. Never SVG, which could hold more than a picture."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class StatedPoint(_Part):
    """FNMR where the threshold is set on these very data so that FMR is a stated one.

    Attributes:
        fnmr: with its interval, `low` to `high`.
        threshold: the score that reaches it.
        impostors_above: comparisons of strangers that decide the threshold.
    """

    fnmr: Rate
    low: Rate
    high: Rate
    threshold: float
    impostors_above: Count


class Measured(_Part):
    """A rate at a fixed threshold, its interval, and how many errors it counts."""

    rate: Rate
    low: Rate
    high: Rate
    count: Count


class PackPoint(_Part):
    """Both error rates at a threshold that the pack ships: fixed before this evaluation.

    Attributes:
        named_fmr: the FMR by which settings name the threshold.
    """

    named_fmr: Annotated[float, Field(gt=0, lt=1)]
    threshold: float
    fmr: Measured
    fnmr: Measured


class DetPoint(_Part):
    """A point of the DET curve; `low` to `high` is the interval of FNMR at this FMR."""

    fmr: Rate
    fnmr: Rate
    low: Rate
    high: Rate


class Histograms(_Part):
    """How many comparisons scored what: `edges` (b + 1) rising, counts (b) of each kind."""

    edges: Annotated[tuple[float, ...], BeforeValidator(_plain)]
    genuine: Annotated[tuple[Count, ...], BeforeValidator(_plain)]
    impostor: Annotated[tuple[Count, ...], BeforeValidator(_plain)]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        bins = len(self.edges) - 1
        if bins < 1 or len(self.genuine) != bins or len(self.impostor) != bins:
            raise ValueError("there must be one edge more than counts of each kind")
        if any(right <= left for left, right in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must rise")
        return self


class HardPair(_Part):
    """A comparison that came near to an error, or was one.

    Attributes:
        score: of the comparison.
        person: whose template it is.
        probe_person: who stood before it; None where it was the same person.
        template, probe: names of the photographs.
        template_faces, probe_faces: the faces of these, only where `--show-faces` asked for them.
    """

    score: float
    person: Name
    template: tuple[Name, ...]
    probe: tuple[Name, ...]
    probe_person: Name | None = None
    template_faces: tuple[Face, ...] = ()
    probe_faces: tuple[Face, ...] = ()


class Hardest(_Part):
    """Genuine comparisons from the least alike, impostor comparisons from the most alike."""

    genuine: tuple[HardPair, ...] = ()
    impostor: tuple[HardPair, ...] = ()


class GroupRow(_Part):
    """The error rates of one group; None where it has no comparison of that kind.

    Attributes:
        people: how many there are in it.
        fnmr_people: those of them who made genuine attempts.
        fmr_people: of its templates and its attempts, those on the side where there are fewer people.
        genuine, impostor: its comparisons.
    """

    group: Name
    people: Count
    fnmr_people: Count = 0
    fmr_people: Count = 0
    genuine: Count
    impostor: Count
    fnmr: Rate | None = None
    fnmr_low: Rate | None = None
    fnmr_high: Rate | None = None
    fmr: Rate | None = None
    fmr_low: Rate | None = None
    fmr_high: Rate | None = None


class Gap(_Part):
    """Between the group with the highest and the one with the lowest rate.

    Attributes:
        worst, best: names of the groups.
        difference: of the rates, with its interval.
        ratio: of the rates; None where the lower is zero.
    """

    worst: Name
    best: Name
    difference: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]
    ratio: float | None = None


class Groups(_Part):
    """One attribute: its groups, all at one threshold, and the gaps.

    A gap is None where fewer than two groups can be compared.
    """

    rows: tuple[GroupRow, ...]
    threshold: float
    at_fmr: Rate
    fnmr_gap: Gap | None = None
    fmr_gap: Gap | None = None
    left_out: dict[Name, Name] = Field(default_factory=dict)


class Report(_Part):
    """One evaluation.

    Attributes:
        drempel: the version that measured.
        made_at, command, seconds: when, how, and how long it took.
        pack, pack_hash, detector_size: the models; the detector's input in pixels, width and height.
        data: what the photographs are.
        template, frames: photographs in a template, frames in an attempt.
        seed: of all that was drawn by chance.
        people, photographs: in the data.
        template_people, templates: people of whom templates could be made, and how many these are.
        genuine_people: people who made genuine attempts: fewer, where photographs are left for none.
        impostor_people: people who made impostor attempts: those with photographs enough for one.
        ignored: files that are no photographs by their names.
        genuine, impostor: comparisons of either kind.
        fte: of the people with photographs enough, the share of whom no template could be made; its interval.
        fta: of the photographs, the share in which no face was found or described; its interval.
        failures: why, with counts.
        gates: what the door's own gates say of the photographs, with counts.
        eer: with its interval; None where the scores kept do not reach it.
        fnmr_at_fmr: by FMR as text, `f"{fmr:g}"`.
        left_out: FMRs, as text, of which nothing is stated, and why.
        at_pack_thresholds: at the thresholds that the pack ships.
        calibrated_on: the data that these were fixed on, as the pack states it; None where it is not known.
        det: by rising FMR.
        groups: by attribute.
        pairs: what a list of pairs gave, by name, some of it in lists; None without one.
        cannot_tell: what these data do not say.
        level: of all intervals.
        intervals: how they were made.
    """

    drempel: str
    made_at: AwareDatetime
    command: Name
    seconds: Annotated[float, Field(ge=0)]
    pack: Name
    pack_hash: str
    detector_size: tuple[int, int]
    data: Name
    template: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=1)]
    seed: int
    people: Count
    photographs: Count
    template_people: Count
    genuine_people: Count
    impostor_people: Count
    templates: Count
    ignored: Count = 0
    genuine: Count
    impostor: Count
    fte: Rate
    fte_low: Rate | None = None
    fte_high: Rate | None = None
    fta: Rate
    fta_low: Rate | None = None
    fta_high: Rate | None = None
    histograms: Histograms
    failures: dict[Name, Count] = Field(default_factory=dict)
    gates: dict[Name, Count] = Field(default_factory=dict)
    eer: Rate | None = None
    eer_low: Rate | None = None
    eer_high: Rate | None = None
    fnmr_at_fmr: dict[str, StatedPoint] = Field(default_factory=dict)
    left_out: dict[str, Name] = Field(default_factory=dict)
    at_pack_thresholds: tuple[PackPoint, ...] = ()
    calibrated_on: Name | None = None
    det: tuple[DetPoint, ...] = ()
    hardest: Hardest = Hardest()
    groups: dict[Name, Groups] = Field(default_factory=dict)
    pairs: dict[Name, int | float | Name | tuple[Name, ...] | None] | None = None
    cannot_tell: tuple[Name, ...] = ()
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    intervals: str = "people drawn anew, with all their comparisons (bootstrap)"

    @model_validator(mode="after")
    def _named_by_rates(self) -> Self:
        for name in (*self.fnmr_at_fmr, *self.left_out):
            try:
                rate = float(name)
            except ValueError:
                rate = math.nan
            if not 0 < rate < 1:
                raise ValueError(f"{name!r} must be a false match rate such as '0.0001'")
        return self

    def to_json(self) -> str:
        """The text of report.json; faces are in it where they are in the report."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read report.json.

        Raises:
            BadReport: it is none; the message names the first thing that is wrong and how many are.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)
            place = ".".join(str(part) for part in wrong[0]["loc"]) or "the whole"
            more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise BadReport(
                f"this is no report.json of `drempel evaluate`: {place}: {wrong[0]['msg']}{more}"
            ) from None
