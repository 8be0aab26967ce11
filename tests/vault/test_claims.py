import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.packs.manifest import Manifest
from appliance.vault.claims import Vaulted, pack_identity
from appliance.vault.store import StoreError
from appliance.vault.token import Token
from tests.vault.faces import EDGE, enrol, face


def test_a_claim_opens_the_one_template_that_it_names(vaulted: Vaulted) -> None:
    tokens = [enrol(vaulted, face(seed)) for seed in range(10)]
    claimed = vaulted.open(tokens[4])
    assert claimed is not None
    assert claimed.handle == tokens[4].handle
    assert claimed.record.score(face(4), EDGE.mean) == pytest.approx(1, abs=1e-6)
    assert vaulted.store.records_read == 1
    claimed.forget()
    assert claimed.record.score(face(4), EDGE.mean) == 0


def test_the_secret_is_overwritten_whether_the_claim_opens_or_not(vaulted: Vaulted) -> None:
    good, unknown = enrol(vaulted, face(1)), Token.create(bytes(16))
    wrong = Token(good.handle, bytearray(b"x" * 16))
    for token in (good, unknown, wrong):
        kept = token.secret
        vaulted.open(token)
        assert len(kept) == 16
        assert not any(kept)


def test_nothing_opens_without_a_current_ground_and_no_record_is_read(vaulted: Vaulted) -> None:
    never = enrol(vaulted, face(1), lease=0)
    ended = enrol(vaulted, face(2))
    vaulted.leases.end(ended.handle)
    assert vaulted.open(never) is None
    assert vaulted.open(ended) is None
    assert vaulted.store.records_read == 0


def test_an_unknown_claim_opens_nothing_and_reads_nothing(vaulted: Vaulted) -> None:
    token = Token.create(secrets.token_bytes(16))
    assert vaulted.open(token) is None
    # Even where somebody vouched for it by mistake.
    token = Token.create(secrets.token_bytes(16))
    vaulted.leases.grant(token.handle, 60)
    assert vaulted.open(token) is None
    assert vaulted.store.records_read == 0


def test_an_erased_claim_opens_nothing(vaulted: Vaulted) -> None:
    token = enrol(vaulted, face(1))
    vaulted.store.erase(token.handle)
    assert vaulted.open(token) is None
    assert vaulted.store.records_read == 0


def test_the_wrong_secret_opens_nothing(vaulted: Vaulted) -> None:
    token = enrol(vaulted, face(1))
    other = enrol(vaulted, face(2))
    assert vaulted.open(Token(token.handle, bytearray(other.secret))) is None
    assert vaulted.store.records_read == 1


def test_a_template_of_another_pack_opens_nothing(vaulted: Vaulted) -> None:
    token = enrol(vaulted, face(1), pack=b"p" * 32)
    assert vaulted.open(token) is None
    assert vaulted.store.records_read == 1


def test_a_row_that_is_said_to_be_of_this_pack_opens_nothing_either(vaulted: Vaulted) -> None:
    """What a pack was is sealed in: changing the column gives nothing away."""
    other = replace(vaulted, pack=b"p" * 32)
    token = enrol(other, face(1), pack=vaulted.pack)
    assert vaulted.open(token) is None


def test_rows_that_were_swapped_in_the_database_open_nothing(vaulted: Vaulted, tmp_path: Path) -> None:
    one, other = enrol(vaulted, face(1)), enrol(vaulted, face(2))
    db = sqlite3.connect(tmp_path / "vault.db")
    (half, body) = db.execute("SELECT half, body FROM record WHERE handle = ?", (one.handle,)).fetchone()
    db.execute("UPDATE record SET half = ?, body = ? WHERE handle = ?", (half, body, other.handle))
    db.commit()
    db.close()
    assert vaulted.open(Token(other.handle, bytearray(one.secret))) is None
    assert vaulted.open(Token(other.handle, bytearray(other.secret))) is None
    assert vaulted.open(one) is not None


def test_a_template_of_another_length_opens_nothing(vaulted: Vaulted) -> None:
    assert vaulted.open(enrol(vaulted, face(1)[:128])) is None


def test_a_database_that_fails_is_an_error_and_the_secret_is_overwritten(vaulted: Vaulted) -> None:
    token = enrol(vaulted, face(1))
    vaulted.store.close()
    with pytest.raises(StoreError):
        vaulted.open(token)
    assert not any(token.secret)


def test_another_embedder_is_another_space_and_another_detector_is_not() -> None:
    def changed(part: str, **values: object) -> Manifest:
        return EDGE.model_copy(update={part: getattr(EDGE, part).model_copy(update=values)})

    assert pack_identity(EDGE) == pack_identity(changed("detector", score=0.7))
    different = [
        changed("embedder", alignment="dlib"),
        changed("embedder", chip=150),
        changed("embedder", conversion="dlib_resnet"),
        EDGE.model_copy(update={"name": "other"}),
    ]
    identities = {pack_identity(each) for each in (EDGE, *different)}
    assert len(identities) == 1 + len(different)
    assert {len(identity) for identity in identities} == {32}
