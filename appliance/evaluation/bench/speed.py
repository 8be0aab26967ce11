"""How long steps 2 to 5 take with the very code of the door, beside its peers and with many enrolled.

Everything is measured round by round: in each, every contestant does one and the same frame, in random
order, on one core. What disturbs the machine disturbs all of them, and what is compared are the ratios
within the rounds. Each does the frame twice in a row. The second time is the figure: at a door frames come
fifteen a second, so the networks lie in the processor's caches; the first time, after another contestant
has emptied them, is told beside it.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from appliance.errors import DrempelError
from appliance.evaluation.bench.enrolled import Enrolled, enrolled
from appliance.evaluation.bench.peers.environment import Peer, interpreter
from appliance.evaluation.bench.peers.process import WORKER, Answer, PeerProcess
from appliance.evaluation.bench.spread import Interval, Spread, ratios
from appliance.lens.camera.interface import Frame
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.lens.camera.replay import fit
from appliance.lens.models import LoadedPack, load_pack
from appliance.lens.quality import judge_chip, judge_faces
from appliance.lens.service import PackRecogniser
from appliance.link.messages import (
    Probe,
)
from appliance.packs.fetch import Progress
from appliance.packs.published import lay_out_published
from appliance.packs.verify import verify_pack
from appliance.settings import Recognition
from appliance.vault.attempt import Decider
from appliance.vault.claims import read_token

STEPS = ("detection", "gates", "alignment", "embedding", "comparison")
"""Steps 2 to 5. The gates on the picture stand around alignment at the door; the whole includes them."""
PACK = "edge"
WIDTH, HEIGHT = 640, 480
SCALES = (1.0, 0.85)
"""Shares of the frame's height that a portrait fills: two distances from the lens."""
WARM_UP = 2
"""Rounds that are not counted: caches, branch predictors and allocators settle."""
COUNTS = (10, 1_000, 100_000)
ENROLLED_ROUNDS = 400
VAULT_ROUNDS = 4_000
"""Rounds of the vault's part alone, which takes a hundredth of the whole."""
TIMES_FASTER = {"face_recognition": 15.0, "insightface": 2.0}
"""What design §9 asks for. "At most 0.5 x the time" of insightface is 2 times faster."""
FLAT = 0.05
"""How far the time with the most enrolled may lie from that with the fewest."""
_MS = 1e-6


def networks(packs: Path) -> dict[str, str]:
    """The SHA-256 of each network that is measured: conversions change, and with them the figures.

    Raises:
        PackDamaged: the pack is not what was installed.
    """
    return {name: digest for name, digest in verify_pack(packs / PACK).items() if name.endswith(".onnx")}


class NotMeasurable(DrempelError, RuntimeError):
    """What was to be measured did not happen: the figures would be of something else."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of ours on one frame, in milliseconds: each of `STEPS`, the whole, and processor time."""

    steps: dict[str, float]
    whole: float
    cpu: float


class Door:
    """Steps 2 to 5 as lens and vault do them, in one process, with a clock between them."""

    def __init__(self, pack: LoadedPack) -> None:
        """The steps of a loaded pack, with a door's default settings."""
        settings = Recognition()
        self.manifest = pack.manifest
        self._recogniser = PackRecogniser(pack.detector, pack.embedder)
        self._face_min_px = settings.face_min_px
        self._decider = Decider(pack.manifest.mean, pack.manifest.threshold(settings.fmr, settings.probes))

    def attempt(self, frame: Frame, vault: Enrolled, code: bytes) -> Attempt:
        """One frame, and the one record that a token's code claims.

        Raises:
            NotMeasurable: there is not one face in the frame, or the claim does not open.
        """
        clock = time.perf_counter_ns
        cpu = time.process_time_ns()
        started = clock()
        faces = self._recogniser.detect(frame)
        detected = clock()
        judge_faces(faces, frame, self._face_min_px)
        judged = clock()
        if len(faces) != 1:
            raise NotMeasurable(f"{len(faces)} faces in a frame that should show one: use other pictures")
        chip = self._recogniser.align(frame, faces[0].landmarks)
        aligned = clock()
        judge_chip(chip)
        judged_chip = clock()
        embedding = self._recogniser.embed(chip)
        chip.fill(0)
        embedded = clock()
        self.compare(vault, code, embedding)
        compared = clock()
        cpu = time.process_time_ns() - cpu
        times = {
            "detection": detected - started,
            "gates": judged - detected + judged_chip - aligned,
            "alignment": aligned - judged,
            "embedding": embedded - judged_chip,
            "comparison": compared - embedded,
        }
        steps = {name: taken * _MS for name, taken in times.items()}
        return Attempt(steps, (compared - started) * _MS, cpu * _MS)

    def compare(self, vault: Enrolled, code: bytes, embedding: np.ndarray[Any, np.dtype[np.float32]]) -> bool:
        """The vault's part: token, one record, its seal, one score; the embedding is overwritten.

        Raises:
            NotMeasurable: the claim does not open.
        """
        probe = Probe(bytearray(embedding.data.cast("B")))
        embedding.fill(0)
        token = read_token(bytearray(code))
        claimed = None if token is None else vault.vaulted.open(token)
        if claimed is None:
            raise NotMeasurable("a claim of the bench's own vault does not open: report this")
        try:
            return self._decider.matches(claimed, probe)
        finally:
            claimed.forget()
            # As after a match, or the limits on guessing would end the bench.
            vault.vaulted.limits.succeeded(claimed.handle)


@dataclass(slots=True)
class Race:
    """What a race gave, two a round of each: our attempts and the peers' answers; and the peers' versions."""

    ours: list[Attempt] = field(default_factory=list)
    peers: dict[str, list[Answer]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def load_door(packs: Path) -> Door:
    """The door's steps with the installed pack, warm, on one thread as in lens."""
    cv2.setNumThreads(1)
    pack = load_pack(packs, PACK, acknowledged=[PACK], detector_size=None)
    pack.warm()
    return Door(pack)


def frames_of(pictures: Sequence[Path]) -> list[Frame]:
    """Frames of 640x480 as the replay camera shows them: each picture at each of `SCALES`.

    Raises:
        NotMeasurable: a picture cannot be read.
    """
    frames = []
    for path in pictures:
        for scale in SCALES:
            try:
                picture = read_picture_file(path)
            except BadPicture as error:
                raise NotMeasurable(f"{path} is no picture that can be read: {error}") from error
            frames.append(fit(picture, WIDTH, HEIGHT, scale))
    return frames


def race(
    door: Door,
    frames: Sequence[Frame],
    peers: Sequence[Peer],
    *,
    packs: Path,
    rounds: int,
    progress: Progress,
) -> Race:
    """Let ours and the peers do the same frames, in random order within each round.

    Raises:
        PeerFailed: a peer could not be set up, or did not answer.
        NotMeasurable: a contestant did not find the one face of a frame.
    """
    pythons = {peer: interpreter(peer, progress) for peer in peers}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drempel-bench-")))
        vault = stack.enter_context(enrolled(COUNTS[0], door.manifest, folder / "vault", progress))
        np.save(folder / "frames.npy", np.stack(frames))
        running = {
            peer: stack.enter_context(_start(peer, python, folder, packs, progress))
            for peer, python in pythons.items()
        }
        result = Race(peers={peer: [] for peer in running})
        result.versions = {peer: process.version for peer, process in running.items()}

        def ours(index: int) -> None:
            code = vault.codes[int(rng.integers(len(vault.codes)))]
            result.ours.append(door.attempt(frames[index], vault, code))

        rng = np.random.default_rng()
        contestants: list[Callable[[int], None]] = [ours]
        contestants += [_asker(running[peer], result.peers[peer]) for peer in running]
        _go_round(contestants, len(frames), rounds, rng, progress, times=2)
    del result.ours[: 2 * WARM_UP]
    for answers in result.peers.values():
        del answers[: 2 * WARM_UP]
    return result


def _start(peer: Peer, python: Path, folder: Path, packs: Path, progress: Progress) -> PeerProcess:
    command: list[str | Path] = [python, "-I", WORKER, peer, folder / "frames.npy"]
    if peer == "insightface":
        (folder / "published").mkdir()
        lay_out_published(PACK, packs, folder / "published", progress)
        command.append(folder / "published")
    return PeerProcess(peer, command)


def _asker(peer: PeerProcess, answers: list[Answer]) -> Callable[[int], None]:
    def ask(index: int) -> None:
        answer = peer.attempt(index)
        if answer.faces != 1:
            raise NotMeasurable(f"{peer.name} found {answer.faces} faces where there is one: report this")
        answers.append(answer)

    return ask


def _go_round(
    contestants: Sequence[Callable[[int], None]],
    frames: int,
    rounds: int,
    rng: np.random.Generator,
    progress: Progress,
    *,
    times: int = 1,
) -> None:
    """Each round one frame, which every contestant does `times` in a row, in random order."""
    told = time.monotonic()
    for number in range(rounds + WARM_UP):
        for each in rng.permutation(len(contestants)):
            for _ in range(times):
                contestants[each](number % frames)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            progress(f"round {number + 1} of {rounds + WARM_UP}")


def race_as_json(result: Race) -> dict[str, Any]:
    """The race in the shape of design §8, with spreads, intervals and counts beside it."""
    first, ours = result.ours[::2], result.ours[1::2]
    wholes = [attempt.whole for attempt in ours]
    steps = {name: Spread.of([attempt.steps[name] for attempt in ours]) for name in STEPS}
    whole = Spread.of(wholes)
    peers = {}
    for peer, both in result.peers.items():
        answers = both[1::2]
        theirs = [answer.wall for answer in answers]
        times = ratios(theirs, wholes)
        processor = ratios([each.cpu for each in answers], [each.cpu for each in ours])
        after_others = ratios([each.wall for each in both[::2]], [each.whole for each in first])
        wanted = TIMES_FASTER[peer]
        peers[peer] = {
            "whole": round(Spread.of(theirs).median, 4),
            "ratio": round(times.median, 4),
            "spread": Spread.of(theirs).as_json(),
            "ratio_interval": times.as_json(),
            "share_of_its_time": times.inverse().as_json(),
            "ratio_of_processor_time": processor.as_json(),
            "ratio_of_first_times": after_others.as_json(),
            "version": result.versions[peer],
            "target_ratio": wanted,
            "met": times.low >= wanted,
        }
    return {
        "steps": {name: round(spread.median, 4) for name, spread in steps.items()},
        "whole": round(whole.median, 4),
        "spread": {name: spread.as_json() for name, spread in (steps | {"whole": whole}).items()},
        "peers": peers,
    }


def measure_enrolled(
    door: Door,
    frames: Sequence[Frame],
    counts: Sequence[int],
    *,
    rounds: int,
    vault_rounds: int,
    progress: Progress,
) -> dict[str, Any]:
    """What an attempt costs with so many enrolled, in the shape of design §8 under `enrolled`.

    Besides the whole attempt the vault's part is measured alone, so that the networks, which take a hundred
    times as long, hide nothing. Every attempt claims another record, drawn at random.

    Raises:
        NotMeasurable: there is not one face in a frame.
        StoreError: the records do not fit on the disk.
    """
    rng = np.random.default_rng()
    whole: dict[int, list[float]] = {count: [] for count in counts}
    alone: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drempel-bench-")))
        vaults = []
        for count in counts:
            progress(f"enrolling {count:,}, sealed and stored as any other record")
            vaults.append(stack.enter_context(enrolled(count, door.manifest, folder / str(count), progress)))

        def claim(vault: Enrolled) -> bytes:
            return vault.codes[int(rng.integers(len(vault.codes)))]

        def attempt_with(vault: Enrolled) -> Callable[[int], None]:
            return lambda index: whole[vault.count].append(
                door.attempt(frames[index], vault, claim(vault)).whole
            )

        def compare_with(vault: Enrolled) -> Callable[[int], None]:
            def compare(_: int) -> None:
                embedding = rng.standard_normal(len(vault.vaulted.mean)).astype(np.float32)
                code = claim(vault)
                started = time.perf_counter_ns()
                door.compare(vault, code, embedding)
                alone[vault.count].append((time.perf_counter_ns() - started) * _MS)

            return compare

        progress(f"{rounds} attempts with each")
        _go_round([attempt_with(vault) for vault in vaults], len(frames), rounds, rng, progress)
        _go_round([compare_with(vault) for vault in vaults], 1, vault_rounds, rng, progress)
        made = rounds + vault_rounds + 2 * WARM_UP
        read = {str(vault.count): vault.vaulted.store.records_read / made for vault in vaults}
    figures = _enrolled_as_json(
        {count: each[WARM_UP:] for count, each in whole.items()},
        {count: each[WARM_UP:] for count, each in alone.items()},
    )
    return figures | {"records_read_per_attempt": read}


def _enrolled_as_json(whole: dict[int, list[float]], alone: dict[int, list[float]]) -> dict[str, Any]:
    fewest, most = min(whole), max(whole)
    ratio = ratios(whole[most], whole[fewest])
    return {
        "enrolled": {str(count): round(Spread.of(each).median, 4) for count, each in whole.items()},
        "enrolled_spread": {str(count): Spread.of(each).as_json() for count, each in whole.items()},
        "enrolled_ratio": ratio.as_json() | {"target": FLAT, "met": _flat(ratio)},
        "vault_part": {str(count): Spread.of(each).as_json() for count, each in alone.items()},
        "vault_part_ratio": ratios(alone[most], alone[fewest]).as_json(),
    }


def _flat(ratio: Interval) -> bool:
    return ratio.low >= 1 - FLAT and ratio.high <= 1 + FLAT
