"""The configuration: one TOML file, read once at start, refused whole when anything in it is wrong.

Nothing but that file decides: no environment variable reaches a door's policy. Every setting is
explained in `config/drempel.toml`, which holds the defaults.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from appliance.errors import ConfigurationError

DEFAULT_PATH = Path("/etc/drempel/drempel.toml")

Pin = Annotated[int, Field(ge=0, le=27)]
"""A BCM number of the 40-pin header."""


def _absolute(value: Any) -> Any:
    """A path from the text of the file; a relative one would depend on where a zone was started."""
    if isinstance(value, str) and value:
        path = Path(value)
        if not path.is_absolute():
            raise ValueError(f"write an absolute path, such as /var/lib/{value}")
        return path
    return value


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]


def _offered_rate(value: float) -> float:
    """One of the false match rates that a pack is calibrated for."""
    if value not in {1e-3, 1e-4, 1e-5}:
        raise ValueError("write 1e-3, 1e-4 or 1e-5")
    return value


class _Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _time_zone(value: str) -> str:
    """A zone of the time zone database."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("write a time zone such as Europe/Amsterdam") from error
    return value


class Site(_Section):
    """Which door this is."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = "Front door"
    language: Literal["nl", "en"] = "nl"
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "Europe/Amsterdam"


class Paths(_Section):
    """Where the zones keep what they hold; each zone has a folder of its own under `state`."""

    state: AbsolutePath = Path("/var/lib/drempel")
    runtime: AbsolutePath = Path("/run/drempel")
    packs: AbsolutePath = Path("/var/lib/drempel/packs")


class Users(_Section):
    """The system user of each zone; an empty name is the user who starts Drempel (simulation only)."""

    door: str = "drempel-door"
    lens: str = "drempel-lens"
    vault: str = "drempel-vault"
    admin: str = "drempel-admin"
    administrators: list[str] = ["root"]

    @model_validator(mode="after")
    def _four_or_none(self) -> Self:
        zones = [self.door, self.lens, self.vault, self.admin]
        named = [name for name in zones if name]
        if named and len(set(named)) != len(zones):
            raise ValueError("the four zones need four different users, or all four empty in a simulation")
        return self


class Api(_Section):
    """The local API, beside its Unix socket."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0


class Door(_Section):
    """The wall: pins by BCM number, and times in seconds."""

    button_pin: Pin = 17
    relay_pin: Pin = 22
    lamp_ready_pin: Pin = 23
    lamp_busy_pin: Pin = 24
    lamp_refused_pin: Pin = 25
    debounce: Annotated[float, Field(ge=0.005, le=0.5)] = 0.03
    unlock_time: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    unlock_limit: Annotated[float, Field(ge=1, le=120)] = 30.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        pins = [
            self.button_pin,
            self.relay_pin,
            self.lamp_ready_pin,
            self.lamp_busy_pin,
            self.lamp_refused_pin,
        ]
        if len(set(pins)) != len(pins):
            raise ValueError("two things share a pin: give each its own")
        if self.unlock_limit < self.unlock_time:
            raise ValueError(
                "unlock_limit is shorter than unlock_time: raise unlock_limit or lower unlock_time"
            )
        return self


class OsdpReader(_Section):
    """A badge reader on OSDP with Secure Channel, which is always enforced."""

    kind: Literal["osdp"] = "osdp"
    name: Annotated[str, Field(min_length=1, max_length=30)]
    device: AbsolutePath
    key_file: AbsolutePath
    address: Annotated[int, Field(ge=0, le=126)] = 101
    baud: Literal[9600, 19200, 38400, 57600, 115200, 230400] = 9600


class Camera(_Section):
    """Where frames come from."""

    source: Literal["v4l2", "picamera2", "replay"] = "v4l2"
    device: AbsolutePath = Path("/dev/video0")
    replay: AbsolutePath | None = None
    width: Annotated[int, Field(ge=160, le=1920)] = 640
    height: Annotated[int, Field(ge=120, le=1080)] = 480

    @model_validator(mode="after")
    def _replay_needs_a_folder(self) -> Self:
        if self.source == "replay" and self.replay is None:
            raise ValueError('source = "replay" needs replay = "/a/folder/of/pictures"')
        return self


class Recognition(_Section):
    """Faces. Off until the configuration names the controller, the DPIA and the legal ground."""

    enabled: bool = False
    controller: str = ""
    dpia: str = ""
    legal_ground: Literal["", "consent", "substantial public interest"] = ""
    pack: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")] = "edge"
    acknowledge: list[str] = []
    fmr: Annotated[float, AfterValidator(_offered_rate)] = 1e-4
    attempt_time: Annotated[float, Field(ge=2, le=15)] = 8.0
    answer_time: Annotated[float, Field(ge=1, le=10)] = 3.0
    probes: Literal[1, 3] = 3
    tier: Literal[1, 2, 3] = 2
    justification: str = ""
    claims: list[Literal["token", "card", "number"]] = ["token"]
    guessing_risk: Annotated[float, Field(ge=1e-3, le=0.1)] = 0.01
    renew_after_days: Annotated[int, Field(ge=1, le=3650)] = 730
    tpm: str = ""
    captures: Annotated[int, Field(ge=1, le=20)] = 5
    face_min_px: Annotated[int, Field(ge=30, le=400)] = 60

    @model_validator(mode="after")
    def _lawful_and_possible(self) -> Self:
        missing = [name for name in ("controller", "dpia", "legal_ground") if not getattr(self, name)]
        if self.enabled and missing:
            raise ValueError(
                f"recognition is on but {', '.join(missing)} is empty: fill in "
                + ", ".join(f'{name} = "..."' for name in missing)
                + ", or write enabled = false"
            )
        if self.tier == 3 and not self.justification.strip():
            raise ValueError(
                "tier 3 lets the device open templates alone: write why this site cannot do with tokens, "
                'justification = "...", or write tier = 2'
            )
        if "number" in self.claims and self.tier != 3:
            raise ValueError(
                "a number and PIN is no secret that protects a template: it needs tier = 3 with a "
                'justification; or leave "number" out of claims'
            )
        if "number" in self.claims and self.answer_time < 2:
            raise ValueError(
                "braking a PIN takes most of a second on a small board: with numbers, write answer_time = 2 "
                "or more"
            )
        if "card" in self.claims and self.tier == 1:
            raise ValueError('a card carries no template: with tier = 1, leave "card" out of claims')
        if self.answer_time >= self.attempt_time:
            raise ValueError("answer_time must be shorter than attempt_time: the claim comes first")
        return self


class Settings(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, strict=True)

    site: Site = Site()
    paths: Paths = Paths()
    users: Users = Users()
    api: Api = Api()
    door: Door = Door()
    badge_readers: list[OsdpReader] = []
    camera: Camera = Camera()
    recognition: Recognition = Recognition()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a door obeys its file alone
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what was read from the file: see `load`."""
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101 - pydantic-settings' own contract
        return (init_settings,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.recognition.enabled and not self.badge_readers:
            raise ValueError(
                "recognition is on but no badge reader is named: face is never the only way in; "
                "add a [[badge_readers]] table, or write [recognition] enabled = false"
            )
        places = [(reader.device, reader.address) for reader in self.badge_readers]
        if len(set(places)) != len(places):
            raise ValueError("two [[badge_readers]] share a device and an address: give each its own address")
        names = [reader.name for reader in self.badge_readers]
        if len(set(names)) != len(names):
            raise ValueError("two [[badge_readers]] share a name: give each its own")
        return self

    def zone_state(self, zone: Literal["door", "lens", "vault", "admin"]) -> Path:
        """The folder in which a zone keeps what it holds."""
        return self.paths.state / zone

    def socket(self, name: str) -> Path:
        """The path of a socket, such as `vault/decision`: the listening zone's folder, then its name."""
        return self.paths.runtime / f"{name}.sock"


def load(path: Path | None = None) -> Settings:
    """The settings in the file at `path`, or where `DREMPEL_CONFIG` points, or in the default place.

    Raises:
        ConfigurationError: no such file, not TOML, an unknown key, a wrong type or a contradiction; one
            line for each, with file, key and what to write instead.
    """
    path = path or Path(os.environ.get("DREMPEL_CONFIG") or DEFAULT_PATH)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} does not exist: copy config/drempel.toml there, or name another with --config"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    for key in values:
        # pydantic-settings would take these for switches of its own (`_cli_parse_args`, `_env_file`).
        if key.startswith("_"):
            raise ConfigurationError(f"{path}: {key} is not a setting; remove it")
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [_explain(path, values, problem) for problem in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(lines)) from None


def _explain(path: Path, values: dict[str, Any], problem: Any) -> str:
    """One line on one problem: the file, the key, and what to write instead."""
    location = problem["loc"]
    key = _dotted(location) or "the file as a whole"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{path}: {key} is not a setting; {advice}"
    if problem["type"] == "missing":
        return f"{path}: {key} is missing; write {location[-1]} = ..."
    if problem["type"] == "value_error":
        return f"{path}: {key}: {problem['ctx']['error']}"
    message = problem["msg"].replace("Input should be", "must be").replace("Input", "it")
    given = _given(values, location)
    return f"{path}: {key} {message}; it says {given!r}"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _given(values: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    return values


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, int):
            continue
        field: FieldInfo | None = model.model_fields.get(part)
        kind = OsdpReader if part == "badge_readers" else field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return sorted(model.model_fields)
