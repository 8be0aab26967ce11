import secrets

import cv2
import numpy as np
import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.lens.camera import Frame
from appliance.lens.code import MAX_CODES_PER_FRAME, MOST_PIXELS, read_codes
from appliance.link.messages import (
    MAX_CODE,
    TOKEN,
)


def held_up(*codes: bytes, module: int = 5, blur: float = 0.0, noise: float = 0.0) -> Frame:
    """A 640 x 480 frame in which `codes` are held up, each module `module` pixels wide."""
    frame = np.full((480, 640, 3), 95, np.uint8)
    left = 10
    for code in codes:
        matrix = np.array(list(segno.make(code, micro=False, error="m").matrix_iter(border=4)), np.uint8)
        symbol = np.where(matrix > 0, 25, 225).astype(np.uint8)
        symbol = cv2.resize(symbol, None, fx=module, fy=module, interpolation=cv2.INTER_NEAREST)
        side = symbol.shape[0]
        frame[40 : 40 + side, left : left + side] = symbol[..., None]
        left += side + 5
    if blur:
        frame = cv2.GaussianBlur(frame, (0, 0), blur)
    if noise:
        grain = np.random.default_rng(5).normal(0, noise, frame.shape)
        frame = np.clip(frame + grain, 0, 255).astype(np.uint8)
    return frame


@pytest.mark.parametrize(
    ("module", "blur", "noise"), [(3, 0, 0), (4, 1.0, 4), (5, 1.5, 4), (6, 2.0, 8), (8, 3.0, 8)]
)
def test_a_token_is_read_byte_for_byte_near_and_far_and_a_little_blurred(
    module: int, blur: float, noise: float
) -> None:
    tokens = [secrets.token_bytes(TOKEN), bytes(TOKEN), b"\xff" * TOKEN, bytes(range(128, 128 + TOKEN))]
    for token in tokens:
        assert read_codes(held_up(token, module=module, blur=blur, noise=noise)) == [token]


def test_a_token_is_read_upside_down_and_at_an_angle() -> None:
    token = secrets.token_bytes(TOKEN)
    frame = held_up(token)
    assert read_codes(np.ascontiguousarray(frame[::-1, ::-1])) == [token]
    turned = cv2.warpAffine(frame, cv2.getRotationMatrix2D((110, 140), 25, 1.0), (640, 480))
    assert read_codes(turned) == [token]


def test_one_code_shown_twice_is_one_code_and_two_are_two() -> None:
    one, other = secrets.token_bytes(TOKEN), secrets.token_bytes(20)
    assert read_codes(held_up(one, one, module=4)) == [one]
    assert sorted(read_codes(held_up(one, other, module=4))) == sorted([one, other])


def test_a_longer_code_than_a_token_is_ignored() -> None:
    assert read_codes(held_up(secrets.token_bytes(MAX_CODE), module=5)) != []
    assert read_codes(held_up(secrets.token_bytes(MAX_CODE + 1), module=5)) == []


def test_a_wallpaper_of_codes_yields_a_few() -> None:
    frame = np.concatenate(
        [held_up(*(secrets.token_bytes(8) for _ in range(4)), module=4)[:160] for _ in range(3)]
    )
    assert len(read_codes(np.ascontiguousarray(frame))) == MAX_CODES_PER_FRAME


def test_other_barcodes_are_not_read() -> None:
    micro = np.array(list(segno.make("12345", micro=True).matrix_iter(border=4)), np.uint8)
    symbol = cv2.resize((1 - micro) * 255, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    assert read_codes(np.ascontiguousarray(np.repeat(symbol[..., None], 3, axis=2))) == []


@pytest.mark.parametrize("shape", [(0, 0, 3), (1, 1, 3), (480, 640), (480, 640, 4), (1, 700, 3)])
def test_a_frame_of_an_odd_shape_holds_no_code(shape: tuple[int, ...]) -> None:
    assert read_codes(np.zeros(shape, np.uint8)) == []


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_a_hostile_picture_crashes_nothing(random: object, damage: int) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    if damage == 0:
        frame = rng.integers(0, 256, (240, 320, 3), np.uint8)
    else:
        frame = held_up(rng.bytes(TOKEN), module=4)
        for _ in range(damage):
            top, left = rng.integers(30, 170), rng.integers(0, 160)
            frame[top : top + 8, left : left + 8] = rng.integers(0, 256)
    assert all(1 <= len(code) <= MAX_CODE for code in read_codes(frame))


@pytest.mark.parametrize("times", [7, 12])
def test_a_token_is_read_in_a_frame_far_too_large(times: int) -> None:
    token = secrets.token_bytes(TOKEN)
    frame = np.repeat(np.repeat(held_up(token), times, 0), times, 1)
    assert frame.shape[0] * frame.shape[1] > MOST_PIXELS
    assert read_codes(frame) == [token]


def test_the_frame_itself_is_left_as_it_was() -> None:
    frame = held_up(b"token")
    before = frame.copy()
    read_codes(frame)
    assert (frame == before).all()
