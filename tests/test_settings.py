import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from appliance.errors import ConfigurationError
from appliance.settings import Settings, load
from appliance.shipped import shipped

SHIPPED = shipped("config/drempel.toml")

READER = """
[[badge_readers]]
name = "outside"
device = "/dev/ttyUSB0"
key_file = "/etc/drempel/keys/outside.scbk"
"""
LAWFUL = """
[recognition]
enabled = true
controller = "Bakkerij De Ooievaar B.V., Delft"
dpia = "DPIA 2026-03"
legal_ground = "consent"
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "drempel.toml"


def refusal(path: Path, text: str) -> str:
    """What `load` says of a file with this text; every line of it names the file."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    message = str(refused.value)
    assert all(line.startswith(f"{path}: ") for line in message.splitlines())
    return message


def keys_of(model: type[BaseModel]) -> dict[str, set[str]]:
    """The keys of each table of the file, by the table's name."""
    tables: dict[str, set[str]] = {}
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        tables[name] = {
            key
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, BaseModel)
            for key in kind.model_fields
        }
    return tables


def test_the_shipped_file_holds_exactly_the_defaults() -> None:
    assert load(SHIPPED) == Settings()


def test_the_shipped_file_explains_every_setting_in_its_own_table() -> None:
    explained: dict[str, set[str]] = {}
    table = ""
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#? ?\[+(\w+)\]+$", line):
            table = heading[1]
            explained[table] = set()
        elif setting := re.match(r"#? ?(\w+) = \S", line):
            explained[table].add(setting[1])
    expected = keys_of(Settings)
    assert all(expected.values())
    assert explained == expected


def test_the_commented_settings_of_the_shipped_file_are_valid_when_they_are_switched_on(
    written: Path,
) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    switched_on = re.sub(r"^# (\[\[|\w+ = )", r"\1", text, flags=re.MULTILINE)
    written.write_text(switched_on, encoding="utf-8")
    settings = load(written)
    assert [reader.name for reader in settings.badge_readers] == ["outside"]
    assert settings.camera.replay == Path("/a/folder")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[door]\nunlock_tim = 3.0", ["door.unlock_tim", "did you mean unlock_time?"]),
        ("[recogniton]\nenabled = true", ["recogniton", "did you mean recognition?"]),
        (READER + 'adress = 4\nkind = "osdp"', ["badge_readers[1].adress", "did you mean address?"]),
        ("[site]\nxyzzy = 1", ["site.xyzzy", "known here: language, name"]),
        ("xyzzy = 1", ["xyzzy", "known here: api, badge_readers, camera, door"]),
    ],
)
def test_an_unknown_key_is_refused_with_the_key_that_was_meant(
    written: Path, text: str, said: list[str]
) -> None:
    message = refusal(written, text)
    assert "is not a setting" in message
    assert all(part in message for part in said)


@pytest.mark.parametrize(
    "key", ["_env_file", "_cli_parse_args", "_secrets_dir", "__pydantic_self__", "_case_sensitive", "self"]
)
def test_no_switch_of_the_settings_library_can_be_set_from_the_file(written: Path, key: str) -> None:
    message = refusal(written, f"{key} = true")
    assert f"{key} is not a setting" in message


@pytest.mark.parametrize(
    ("text", "key", "advice"),
    [
        ('[door]\nunlock_time = "5"', "door.unlock_time", "must be a valid number; it says '5'"),
        ("[door]\nbutton_pin = 17.0", "door.button_pin", "must be a valid integer; it says 17.0"),
        ("[door]\nbutton_pin = 28", "door.button_pin", "less than or equal to 27; it says 28"),
        ("[door]\nunlock_time = nan", "door.unlock_time", "it says nan"),
        ("[door]\nunlock_limit = inf", "door.unlock_limit", "it says inf"),
        ("[door]\ndebounce = nan", "door.debounce", "it says nan"),
        ("[recognition]\nanswer_time = nan", "recognition.answer_time", "it says nan"),
        ("[recognition]\nattempt_time = nan", "recognition.attempt_time", "it says nan"),
        ("[recognition]\nenabled = 1", "recognition.enabled", "must be a valid boolean; it says 1"),
        ("[recognition]\nprobes = 2", "recognition.probes", "must be 1 or 3; it says 2"),
        ("[recognition]\nfmr = 2e-4", "recognition.fmr", "write 1e-3, 1e-4 or 1e-5"),
        ("[recognition]\nfmr = nan", "recognition.fmr", "write 1e-3, 1e-4 or 1e-5"),
        ('[recognition]\nlegal_ground = "habit"', "recognition.legal_ground", "must be ''"),
        ('[recognition]\npack = "../edge"', "recognition.pack", "should match pattern"),
        ('[site]\nlanguage = "de"', "site.language", "must be 'nl' or 'en'; it says 'de'"),
        ('[site]\nname = ""', "site.name", "at least 1 character; it says ''"),
        ('[paths]\nstate = "drempel"', "paths.state", "write an absolute path, such as /var/lib/drempel"),
        ('[paths]\nruntime = ""', "paths.runtime", "it says ''"),
        ("[paths]\nstate = 3", "paths.state", "it says 3"),
        ("recognition = true", "recognition", "it says True"),
        ('[[badge_readers]]\nname = "a"\ndevice = "/dev/x"', "badge_readers[1].key_file", "write key_file"),
        (READER + "address = 127", "badge_readers[1].address", "less than or equal to 126; it says 127"),
        (READER + "baud = 1200", "badge_readers[1].baud", "must be 9600"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_to_write(
    written: Path, text: str, key: str, advice: str
) -> None:
    message = refusal(written, text)
    assert f"{key}" in message
    assert advice in message


@pytest.mark.parametrize(
    ("text", "key", "advice"),
    [
        (
            '[users]\ndoor = "a"\nlens = "a"\nvault = "b"\nadmin = "c"',
            "users",
            "four different users, or all four empty",
        ),
        ('[users]\ndoor = ""', "users", "four different users, or all four empty"),
        ("[door]\nrelay_pin = 17", "door", "two things share a pin: give each its own"),
        ("[door]\nunlock_time = 40.0", "door", "raise unlock_limit or lower unlock_time"),
        ('[camera]\nsource = "replay"', "camera", 'needs replay = "/a/folder/of/pictures"'),
        (
            "[recognition]\nattempt_time = 3.0\nanswer_time = 3.0",
            "recognition",
            "answer_time must be shorter than attempt_time",
        ),
        (
            READER + '[recognition]\nenabled = true\ncontroller = "C"',
            "recognition",
            'fill in dpia = "...", legal_ground = "...", or write enabled = false',
        ),
        (
            LAWFUL,
            "the file as a whole",
            "add a [[badge_readers]] table, or write [recognition] enabled = false",
        ),
        (READER + READER.replace("outside", "inside"), "the file as a whole", "give each its own address"),
        (READER + READER.replace("USB0", "USB1"), "the file as a whole", "share a name: give each its own"),
    ],
)
def test_a_contradiction_is_refused_with_the_ways_out(
    written: Path, text: str, key: str, advice: str
) -> None:
    message = refusal(written, text)
    assert f"{written}: {key}: " in message
    assert advice in message


def test_a_face_is_switched_on_only_by_a_lawful_file_with_a_reader(written: Path) -> None:
    written.write_text(LAWFUL + READER, encoding="utf-8")
    assert load(written).recognition.enabled
    assert not Settings().recognition.enabled


def test_every_problem_of_a_file_gets_a_line_of_its_own(written: Path) -> None:
    message = refusal(written, '[door]\nbutton_pin = 99\n[site]\nlanguage = "de"\ncolour = "red"')
    assert [line.removeprefix(f"{written}: ").split()[0] for line in message.splitlines()] == [
        "site.language",
        "site.colour",
        "door.button_pin",
    ]


def test_a_file_that_is_not_there_is_named_with_where_to_get_one(written: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written)
    assert str(refused.value).startswith(f"{written} does not exist: copy config/drempel.toml there")


def test_a_file_that_is_no_toml_is_refused_with_the_place_of_the_mistake(written: Path) -> None:
    written.write_text("[door]\nunlock_time = = 3", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"drempel\.toml is not valid TOML: .*line 2"):
        load(written)


@pytest.mark.parametrize("data", [b'[site]\nname = "caf\xe9"', b"\xff\xfe[\x00", b"\x80"])
def test_a_file_that_is_no_utf_8_is_refused(written: Path, data: bytes) -> None:
    written.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"drempel\.toml cannot be read"):
        load(written)


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)


def test_no_environment_variable_reaches_a_doors_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(SHIPPED)
    for table, keys in keys_of(Settings).items():
        monkeypatch.setenv(table.upper(), '{"enabled": true, "unlock_time": 60.0, "name": "x"}')
        for key in keys:
            for name in (f"{table}__{key}", f"{table}_{key}", key, f"DREMPEL_{table}__{key}"):
                monkeypatch.setenv(name.upper(), "60")
                monkeypatch.setenv(name, "true")
    assert load(SHIPPED) == expected
    assert Settings() == expected


def test_no_dotenv_file_reaches_a_doors_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DOOR__UNLOCK_TIME=60\nSITE__NAME=x\nSITE={}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load(SHIPPED) == Settings()


def test_the_file_can_be_named_by_the_environment_but_an_argument_wins(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write_text('[site]\nname = "Back door"', encoding="utf-8")
    monkeypatch.setenv("DREMPEL_CONFIG", str(written))
    assert load().site.name == "Back door"
    assert load(SHIPPED).site.name == "Front door"


def test_settings_do_not_change_while_a_zone_runs() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.door.unlock_time = 60.0  # type: ignore[misc]


_words = st.sampled_from([key for keys in keys_of(Settings).values() for key in keys]) | st.text(
    "ab_-", max_size=4
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=8,
)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key!r} = {_toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str() | None:
            return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value or "") + '"'
        case _:
            return str(value)


@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables=st.dictionaries(st.sampled_from(sorted(Settings.model_fields)) | _words, _values, max_size=3))
def test_any_toml_is_either_taken_or_refused_with_a_message(written: Path, tables: dict[str, object]) -> None:
    text = "".join(f"{key!r} = {_toml(value)}\n" for key, value in tables.items())
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    written.write_text(text, encoding="utf-8")
    try:
        load(written)
    except ConfigurationError as refused:
        assert str(written) in str(refused)  # noqa: PT017 - a refusal is as good as a success
