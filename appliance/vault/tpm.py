"""A secret of the TPM's own for each epoch, so that a copy of the whole card opens nothing (design §4).

Each epoch has 32 random bytes in an NV index of the TPM 2.0; even and odd epochs use one index each, so that
the next secret is there before the last one is destroyed. What `TPM2_NV_UndefineSpace` destroyed is in no
copy of the card, and the card's old epoch file asks for exactly it.

tpm2-tools do the speaking, called by absolute path and without a shell. Secrets travel in memory files and
pipes alone: an argument of a command is for everyone to read. The index asks for an authorisation value
derived from `R`, so that another system on the same board does not read it; the owner hierarchy's must be
empty, as it is from the factory. Parameters are not encrypted on the bus between processor and chip: who
sniffs that bus on a running device learns the secret, and needs `R` and the card besides.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.vault.keys import KEY, KeyLost, random_bytes, wipe

_INDICES = (0x01800D10, 0x01800D11)
"""Where even and odd epochs are kept: in the range that the owner gives out (TCG registry of handles)."""
_ATTRIBUTES = "authread|authwrite|no_da"
"""Read and written with the index's own value; a wrong one never locks the TPM's owner out."""
_TOOLS = "/usr/bin/tpm2_"
_PATIENCE = 15.0
"""Seconds for one command; a discrete TPM takes well under one."""


class Binder:
    """The secrets of the epochs in one TPM."""

    def __init__(self, tcti: str, root: bytearray) -> None:
        """Nothing is asked of the TPM yet.

        Args:
            tcti: where the TPM is, in the words of tpm2-tools: `device:/dev/tpmrm0`.
            root: `R`.
        """
        self._tcti = tcti
        self._value = bytearray(KEY)
        HKDF(hashes.SHA256(), KEY, salt=None, info=b"drempel tpm index v2").derive_into(root, self._value)

    def begin(self, epoch: int) -> bytearray:
        """A new secret of 32 bytes for an epoch, in the place of any that stands there, read back.

        Raises:
            KeyLost: the TPM does not do it.
        """
        self.destroy(epoch)
        index = _index(epoch)
        secret = random_bytes(KEY)
        try:
            with self._authorisation() as value, _memory_file(secret) as content:
                self._call("nvdefine", index, "-C", "o", "-s", str(KEY), "-a", _ATTRIBUTES, "-p", value)
                self._call("nvwrite", index, "-C", index, "-P", value, "-i", content)
        finally:
            wipe(secret)
        return self.secret(epoch)

    def secret(self, epoch: int) -> bytearray:
        """The secret of an epoch, 32 bytes in a buffer that the caller owns.

        Raises:
            KeyLost: it was destroyed, or the TPM does not answer.
        """
        index = _index(epoch)
        if index not in self._defined():
            raise KeyLost(
                f"the TPM holds no secret for epoch {epoch}: an old copy of the card was put back, or the "
                "TPM was cleared; put the newest back, or move vault.db and epoch-*.key away and enrol "
                "everyone anew"
            )
        secret = bytearray(KEY)
        with self._authorisation() as value:
            self._call("nvread", index, "-C", index, "-P", value, "-s", str(KEY), into=secret)
        return secret

    def in_use(self) -> bool:
        """Whether the TPM holds a secret of any epoch.

        Raises:
            KeyLost: the TPM does not answer.
        """
        defined = self._defined()
        return any(_index(epoch) in defined for epoch in (0, 1))

    def destroy(self, epoch: int) -> None:
        """Destroy the secret of an epoch; none is no error.

        Raises:
            KeyLost: the TPM does not do it.
        """
        index = _index(epoch)
        if index in self._defined():
            self._call("nvundefine", index, "-C", "o")

    def forget(self) -> None:
        """Overwrite what this process knows."""
        wipe(self._value)

    def _defined(self) -> list[str]:
        listed = bytearray(16_384)
        length = self._call("getcap", "handles-nv-index", into=listed)
        return [line.strip(b"- ").decode().lower() for line in bytes(listed[:length]).splitlines()]

    @contextmanager
    def _authorisation(self) -> Iterator[str]:
        """The authorisation value as tpm2-tools read it: `file:` and a memory file with its hexadecimal."""
        text = bytearray(b"hex:") + bytearray(2 * len(self._value))
        for place, byte in enumerate(self._value):
            text[4 + 2 * place : 6 + 2 * place] = b"%02x" % byte
        try:
            with _memory_file(text) as path:
                yield f"file:{path}"
        finally:
            wipe(text)

    def _call(self, tool: str, *arguments: str, into: bytearray | None = None) -> int:
        """Run one of the tools; the length of what it said, which is read into `into`.

        Raises:
            KeyLost: it failed, or was not there.
        """
        command = [_TOOLS + tool, *arguments, "-T", self._tcti]
        # Every memory file is named in an argument, and open in the child under the same number.
        files = [int(each.rpartition("/")[2]) for each in arguments if "/dev/fd/" in each]
        try:
            with subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=files,
                env={"LC_ALL": "C", "TPM2TOOLS_ENABLE_ERRATA": "1"},
            ) as process:
                length = _read_all(process, into if into is not None else bytearray(4096))
                status = process.wait(_PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KeyLost(f"the TPM cannot be asked ({command[0]}): install tpm2-tools") from error
        if status:
            raise KeyLost(
                f"the TPM at {self._tcti} refused {tool}: is [recognition] tpm right, may this user open it, "
                "and is its owner hierarchy without a password?"
            )
        return length


def _read_all(process: "subprocess.Popen[bytes]", into: bytearray) -> int:
    """What the process says, into the buffer until that is full; the rest is read and dropped."""
    assert process.stdout is not None  # noqa: S101 - asked for above
    length = 0
    with memoryview(into) as whole:
        while length < len(into):
            with whole[length:] as left:
                read = os.readv(process.stdout.fileno(), [left])
            if not read:
                break
            length += read
    while process.stdout.read(4096):
        pass
    return length


@contextmanager
def _memory_file(content: bytearray) -> Iterator[str]:
    """A file in memory alone, for a child of this process; overwritten and gone afterwards."""
    file = os.memfd_create("drempel", os.MFD_CLOEXEC)
    try:
        os.write(file, content)
        yield f"/dev/fd/{file}"
    finally:
        os.pwrite(file, bytes(len(content)), 0)
        os.close(file)


def _index(epoch: int) -> str:
    return f"0x{_INDICES[epoch % 2]:x}"
