"""How the events of an application are stored: with which cipher and with which compressor.

A process that has others cannot read what is stored, and what it writes, others cannot read; without the cipher it
would write plain text beside encrypted events. So the registry records both for the whole fleet, by their topics and
without a key.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from eventsourcing.utils import Environment

from tenancy.errors import EncodingMismatch

__all__ = ["PLAIN", "Encoding", "check_encoding"]


class Encoding(NamedTuple):
    """Topics of the classes that make stored bytes of an event; empty for none."""

    cipher: str
    compressor: str

    @classmethod
    def read(cls, env: Environment) -> Encoding:
        """Return what the library constructs from an application's variables."""
        # With a key and no topic, the library takes its own cipher.
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
