"""What a replay shows, and when: `scene.toml`, read and checked whole before anything is shown.

Example:
    loop = 6.0                 # optional: seconds after which the scene begins again; else the last is held

    [[frame]]
    at = 0.0                   # seconds since the camera opened; each later than the one before
    empty = true               # a dark wall with nobody before it

    [[frame]]
    at = 1.5
    picture = "token.png"      # a file in the same folder; shown until the next frame's time
    blur = 1.5                 # optional: sigma in pixels of the frame
    scale = 0.5                # optional: share of the field of view that it fills, above 0 to 1
"""

import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from appliance.lens.camera.interface import CameraAbsent

SCENE = "scene.toml"
PICTURES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2"}
)
PICTURES_PER_SECOND = 10
"""How fast a folder without a scene is shown."""


class SceneInvalid(CameraAbsent, ValueError):
    """The scene cannot be played; the message says which line of it, and what to write instead."""


class Shot(BaseModel):
    """One entry of a scene: what is before the camera from `at` seconds on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Annotated[float, Field(ge=0, le=3600)]
    picture: str | None = None
    empty: bool = False
    blur: Annotated[float, Field(ge=0, le=50)] = 0.0
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.picture is None) != self.empty:
            raise ValueError('write either picture = "file.jpg" or empty = true')
        if self.picture is not None:
            if PurePath(self.picture).name != self.picture:
                raise ValueError("picture is the name of a file in the same folder")
            if PurePath(self.picture).suffix.lower() not in PICTURES:
                raise ValueError(f"picture must end in one of {', '.join(sorted(PICTURES))}")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: Annotated[list[Shot], Field(min_length=1)]
    loop: Annotated[float, Field(gt=0, le=3600)] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Shots in the order of their times; `loop` is the seconds after which the first is shown again."""

    shots: tuple[Shot, ...]
    loop: float | None = None

    def index_at(self, seconds: float) -> int | None:
        """Which shot is before the camera `seconds` after it opened; None before the first."""
        if self.loop is not None:
            seconds %= self.loop
        current = None
        for index, shot in enumerate(self.shots):
            if shot.at > seconds:
                break
            current = index
        return current


def scene_from_text(text: str, origin: str) -> Scene:
    """The scene that `text` describes.

    Raises:
        SceneInvalid: no TOML, an unknown key, a wrong value, or times out of order.
    """
    try:
        file = _File(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SceneInvalid(f"{origin} is not valid TOML: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in problem["loc"])
        raise SceneInvalid(f"{origin}: {where or 'the scene'}: {problem['msg']}") from None
    times = [shot.at for shot in file.frame]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise SceneInvalid(f"{origin}: give each [[frame]] a later `at` than the one before")
    if file.loop is not None and file.loop <= times[-1]:
        raise SceneInvalid(f"{origin}: loop must be later than the last frame, at {times[-1]} s")
    return Scene(tuple(file.frame), file.loop)


def scene_from_names(names: list[str], origin: str) -> Scene:
    """The pictures among `names` in their order, at `PICTURES_PER_SECOND`; the last is held.

    Raises:
        SceneInvalid: no picture is among them.
    """
    pictures = sorted(name for name in names if PurePath(name).suffix.lower() in PICTURES)
    if not pictures:
        raise SceneInvalid(f"{origin} holds no picture: put .jpg or .png files there, or a {SCENE}")
    return Scene(
        tuple(Shot(at=number / PICTURES_PER_SECOND, picture=name) for number, name in enumerate(pictures))
    )
