"""The cipher and compressor that an application's events are stored with.

A process with another cipher or compressor cannot read the stored events, and others cannot read its events; without
the cipher it would write plain text beside encrypted events. So the registry records both for the whole fleet: their
topics, never a key.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from eventsourcing.utils import Environment

from tenancy.errors import EncodingMismatch

__all__ = ["PLAIN", "Encoding", "check_encoding"]


class Encoding(NamedTuple):
    """The topics of the cipher and compressor classes; empty for none."""

    cipher: str
    compressor: str

    @classmethod
    def read(cls, env: Environment) -> Encoding:
        """Return the encoding that the library constructs from an application's variables."""
        # With a key and no topic, the library uses its default cipher.
        default = "eventsourcing.cipher:AESCipher" if env.get("CIPHER_KEY") else ""
        return cls(env.get("CIPHER_TOPIC") or default, env.get("COMPRESSOR_TOPIC") or "")


PLAIN: Final = Encoding("", "")
_VARIABLES: Final = {"cipher": "CIPHER_TOPIC and CIPHER_KEY", "compressor": "COMPRESSOR_TOPIC"}


def check_encoding(application: str, used: Encoding, recorded: Encoding) -> None:
    """Raise EncodingMismatch when a process uses another encoding for an application than is recorded."""
    for kind, variables in _VARIABLES.items():
        stored, own = getattr(recorded, kind), getattr(used, kind)
        if own == stored:
            continue
        how = f"with the {kind} {stored!r}" if stored else f"without a {kind}"
        msg = f"The events of {application!r} are stored {how}, and this process has {repr(own) if own else 'none'}."
        remedy = f"Set {variables} as in the fleet's other processes." if stored else f"Unset {variables}."
        if own:
            remedy += f" If this {kind} reads what is stored, change the fleet: tenancy init --accept-encodings"
        raise EncodingMismatch(msg, remedy=remedy)
