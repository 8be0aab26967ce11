from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.rights import MAX_WINDOWS, RIGHTS, BadRights, Rights, Window, allows
from tests.cases import many

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
ZONES = st.sampled_from(
    [AMSTERDAM, ZoneInfo("America/Curacao"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("Australia/Lord_Howe")]
)
MOMENTS = st.integers(1_700_000_000, 1_900_000_000)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(st.integers(0, 1439))
    return Window(draw(st.integers(0, 6)), start, draw(st.integers(start + 1, 1440)))


RIGHTS_OF_SOMEBODY = st.builds(
    Rights,
    st.none() | MOMENTS,
    st.none() | MOMENTS,
    st.lists(windows(), max_size=MAX_WINDOWS).map(tuple),
)
OFFICE = Rights(hours=tuple(Window(day, 8 * 60, 18 * 60) for day in range(5)))


def at(text: str, zone: ZoneInfo = AMSTERDAM) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def test_rights_are_of_one_length() -> None:
    assert len(OFFICE.encode()) == RIGHTS


@given(RIGHTS_OF_SOMEBODY)
@many
def test_rights_are_decoded_as_they_were_encoded(rights: Rights) -> None:
    assert Rights.decode(rights.encode()) == rights


@given(st.binary(min_size=RIGHTS, max_size=RIGHTS) | st.binary(max_size=2 * RIGHTS))
@example(bytes(RIGHTS))
@many
def test_what_is_no_encoding_of_rights_is_refused_and_each_rights_have_one_encoding(data: bytes) -> None:
    try:
        rights = Rights.decode(data)
    except BadRights:
        return
    assert rights.encode() == data


@given(RIGHTS_OF_SOMEBODY, st.integers(0, 8 * RIGHTS - 1))
@many
def test_a_flipped_bit_gives_other_rights_or_none(rights: Rights, bit: int) -> None:
    damaged = bytearray(rights.encode())
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        assert Rights.decode(bytes(damaged)) != rights
    except BadRights:
        pass


@pytest.mark.parametrize(
    ("weekday", "start", "end"), [(7, 0, 60), (-1, 0, 60), (0, 60, 60), (0, 61, 60), (0, -1, 5), (0, 0, 1441)]
)
def test_a_window_is_within_one_day(weekday: int, start: int, end: int) -> None:
    with pytest.raises(BadRights):
        Window(weekday, start, end)


def test_too_many_windows_or_a_validity_beyond_the_calendar_are_refused() -> None:
    with pytest.raises(BadRights):
        Rights(hours=(Window(0, 0, 1),) * (MAX_WINDOWS + 1))
    with pytest.raises(BadRights):
        Rights(valid_until=2**62)


def by_the_calendar(rights: Rights, moment: int, zone: ZoneInfo) -> bool:
    """The same said otherwise: the local wall clock, read off as text."""
    if rights.valid_from is not None and moment < rights.valid_from:
        return False
    if rights.valid_until is not None and moment >= rights.valid_until:
        return False
    weekday, hours, minutes = (
        (datetime.fromtimestamp(moment, UTC).astimezone(zone)).strftime("%u %H %M").split()
    )
    now = (int(weekday) - 1, f"{hours}:{minutes}")
    return not rights.hours or any(
        each.weekday == now[0]
        and f"{each.start // 60:02}:{each.start % 60:02}"
        <= now[1]
        < f"{each.end // 60:02}:{each.end % 60:02}"
        for each in rights.hours
    )


@given(RIGHTS_OF_SOMEBODY, MOMENTS, ZONES)
@many
def test_with_a_trusted_clock_the_calendar_decides(rights: Rights, moment: int, zone: ZoneInfo) -> None:
    assert allows(rights, moment, zone, 0) == by_the_calendar(rights, moment, zone)


@given(RIGHTS_OF_SOMEBODY, st.none() | MOMENTS, ZONES, MOMENTS)
@many
def test_nothing_that_ended_before_the_latest_trusted_time_comes_back(
    rights: Rights, moment: int | None, zone: ZoneInfo, latest: int
) -> None:
    allowed = allows(rights, moment, zone, latest)
    if rights.valid_until is not None and rights.valid_until <= latest:
        assert not allowed
    if moment is None and rights.hours:
        assert not allowed, "nothing can be said of hours"
    if moment is None and not rights.hours and rights.valid_from is None and rights.valid_until is None:
        assert allowed, "who has neither hours nor validity needs no clock"


def test_office_hours_in_the_week_and_at_its_edges() -> None:
    for text, open_ in [
        ("2026-11-23 07:59:59", False),  # a Monday
        ("2026-11-23 08:00:00", True),
        ("2026-11-27 17:59:59", True),
        ("2026-11-27 18:00:00", False),
        ("2026-11-28 12:00:00", False),
    ]:
        assert allows(OFFICE, at(text), AMSTERDAM, 0) is open_, text


def test_hours_are_local_hours_on_either_side_of_a_change_of_the_clock() -> None:
    sunday = Rights(hours=(Window(6, 9 * 60, 10 * 60), Window(6, 2 * 60, 3 * 60)))
    for day in ("2026-03-29", "2026-10-25"):
        assert allows(sunday, at(f"{day} 09:30"), AMSTERDAM, 0)
        assert not allows(sunday, at(f"{day} 10:00"), AMSTERDAM, 0)
    # From 2:00 to 3:00 there is no time on the day in March, and twice the time in October.
    for day, minutes in (("2026-03-29", 0), ("2026-10-25", 120)):
        midnight = at(f"{day} 00:00")
        night = [allows(sunday, midnight + 60 * minute, AMSTERDAM, 0) for minute in range(6 * 60)]
        assert sum(night) == minutes


def test_validity_ends_with_its_second() -> None:
    today = Rights(at("2026-11-25 00:00"), at("2026-11-26 00:00"))
    assert not allows(today, at("2026-11-24 23:59:59"), AMSTERDAM, 0)
    assert allows(today, at("2026-11-25 00:00"), AMSTERDAM, 0)
    assert allows(today, at("2026-11-25 23:59:59"), AMSTERDAM, 0)
    assert not allows(today, at("2026-11-26 00:00"), AMSTERDAM, 0)
    # A clock that was put back a little after the end.
    assert not allows(today, at("2026-11-25 23:59"), AMSTERDAM, at("2026-11-26 00:00"))
    # Untrusted: valid as of the latest time that was trusted, or not known to be.
    assert allows(today, None, AMSTERDAM, at("2026-11-25 12:00"))
    assert not allows(today, None, AMSTERDAM, at("2026-11-24 12:00"))


def test_a_whole_day_is_a_window_to_its_last_minute() -> None:
    monday = Rights(hours=(Window(0, 0, 1440),))
    midnight = at("2026-11-23 00:00")
    whole = [allows(monday, midnight + 60 * minute, AMSTERDAM, 0) for minute in range(-1, 1441)]
    assert sum(whole) == timedelta(days=1) / timedelta(minutes=1)
    assert whole[0] is whole[-1] is False
