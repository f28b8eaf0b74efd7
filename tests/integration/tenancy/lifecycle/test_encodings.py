"""A fleet with a cipher or a compressor refuses processes that lack it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
import sqlalchemy as sa
from eventsourcing.cipher import AESCipher

from eventsourcing_sqlalchemy.shared_resources import SharedResources
from tenancy import Tenancy
from tenancy.errors import EncodingMismatch
from tenancy.operations.doctor import examine, repair
from tenancy.registry.cache import RegistryCache
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import SYSTEM, Dog, Kennel, Notes
from tests.support.deadlines import run_together, wait_until


class OtherCipher(AESCipher):
    """Another class, and therefore another topic."""


AES = "eventsourcing.cipher:AESCipher"
OTHER = f"{__name__}:OtherCipher"


def key() -> str:
    return AESCipher.create_key(16)


ENCODINGS = [
    ({"CIPHER_KEY": key()}, {}),
    ({"CIPHER_TOPIC": AES, "CIPHER_KEY": key()}, {"KENNEL_CIPHER_TOPIC": OTHER, "KENNEL_CIPHER_KEY": key()}),
    ({"KENNEL_CIPHER_KEY": key()}, {"VISITS_CIPHER_KEY": key()}),
    ({"COMPRESSOR_TOPIC": "zlib"}, {}),
    ({}, {"CIPHER_KEY": key()}),
    ({}, {"COMPRESSOR_TOPIC": "zlib"}),
]


@pytest.mark.parametrize(("fleets", "own"), ENCODINGS)
def test_a_process_with_another_encoding_is_refused(
    fleet: MakeFleet, fleets: dict[str, str], own: dict[str, str]
) -> None:
    acme = fleet(**fleets).create("acme")
    acme.get(Kennel).register("Fido")
    tenants = fleet(**own)
    kennel = tenants["acme"].get(Kennel)
    stripped = {name: value for name, value in acme.env().items() if name not in fleets} | own
    with Kennel(env=stripped) as outside:
        for call in (
            lambda: kennel.register("Rex"),
            kennel.names,
            lambda: kennel.take_snapshot(Dog(name="Rex").id),
            lambda: outside.register("Rex"),
            outside.names,
            lambda: tenants.create("globex"),
            lambda: list(tenants.create_many(["globex"])),
            tenants.init,
        ):
            with pytest.raises(EncodingMismatch, match="of 'Kennel' are stored") as caught:
                call()
            keys = [value for name, value in {**fleets, **own}.items() if name.endswith("_KEY")]
            assert not any(value in str(caught.value) for value in keys)
    assert tenants.slugs() == ["acme"]
    tenants.suspend("acme")  # needs no events
    tenants.resume("acme")
    assert acme.get(Kennel).names() == ["Fido"]


def test_the_registry_keeps_no_key(fleet: MakeFleet) -> None:
    secret = key()
    tenants = fleet(CIPHER_KEY=secret)
    tenants.create("acme")
    with tenants.fleet.registry.reading() as session:
        for table in tenants.fleet.registry.rows.metadata.tables.values():
            assert secret not in str(session.execute(sa.select(table)).all())
    assert tenants.fleet.registry.encodings() == {"Kennel": (AES, ""), "Visits": (AES, "")}


def test_a_key_can_be_rotated(fleet: MakeFleet) -> None:
    fleet(CIPHER_KEY=key()).create("acme")
    fleet(CIPHER_TOPIC=AES, CIPHER_KEY=key())["acme"].get(Kennel).register("Fido")


def test_a_new_application_brings_its_own_encoding(fleet: MakeFleet) -> None:
    fleet(Kennel).create("acme").get(Kennel).register("Fido")
    tenants = fleet(Kennel, Notes, NOTES_CIPHER_KEY=key())
    with pytest.raises(EncodingMismatch, match="'Notes' are stored without"):
        tenants["acme"].get(Notes).note()
    assert "ok" in {each.level for each in repair(tenants.fleet)}
    tenants["acme"].get(Notes).note()
    with pytest.raises(EncodingMismatch, match="'Notes' are stored with the cipher"):
        fleet(Kennel, Notes)["acme"].get(Notes).note()
    # Even if a process without it has recorded its own applications meanwhile.
    fleet(Kennel).init()
    with pytest.raises(EncodingMismatch):
        fleet(Notes).init()


def test_changed_encoding_stops_running_processes(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = fleet().create("acme")
    before = acme.get(Kennel)
    assert before.names() == []
    monkeypatch.setattr(
        "tenancy.registry.cache.registry_caches", SharedResources(RegistryCache.close)
    )  # as another process
    tenants = fleet(CIPHER_KEY=key())
    kennel = tenants["acme"].get(Kennel)
    with pytest.raises(EncodingMismatch, match="init --accept-encodings"):
        kennel.register("Fido")
    tenants.init(accept_encodings=True)
    kennel.register("Fido")

    def is_refused() -> bool:
        with suppress(EncodingMismatch):
            before.recorder.max_notification_id()
            return False
        return True

    wait_until(is_refused, "the process without the cipher is refused")


def test_a_registry_without_recorded_encodings_may_have_plain_events(fleet: MakeFleet) -> None:
    tenants = fleet()
    tenants.create("acme").get(Kennel).register("Fido")
    with tenants.fleet.registry.writing() as session:
        session.execute(sa.delete(tenants.fleet.registry.rows.encodings))
    ciphered = fleet(CIPHER_KEY=key())
    with pytest.raises(EncodingMismatch):
        ciphered["acme"].get(Kennel).register("Rex")
    with pytest.raises(EncodingMismatch):
        ciphered.init()
    assert tenants["acme"].get(Kennel).names() == ["Fido"]


def test_a_runner_does_not_start_and_the_doctor_names_the_cause(fleet: MakeFleet, url: str) -> None:
    fleet(CIPHER_KEY=key()).create("acme")
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        with pytest.raises(EncodingMismatch):
            tenants.runner().start()
        found = [each.what for each in examine(tenants.fleet) if each.level == "failure"]
        assert len(found) == 2
        assert all("stored with the cipher" in what for what in found)


@pytest.mark.parametrize("driver", ["", "psycopg2", "psycopg", "pg8000"])
def test_one_of_many_first_processes_wins(
    request: pytest.FixtureRequest, make_fleet: Callable[[str], MakeFleet], driver: str
) -> None:
    url: str = request.getfixturevalue("postgres_url" if driver else "sqlite_url")
    if driver:
        url = sa.make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    make = make_fleet(url)
    fleets = [make(CIPHER_KEY=key()) if number % 2 else make() for number in range(6)]

    def refused(tenants: Tenancy) -> bool:
        try:
            tenants.init()
        except EncodingMismatch:
            return True
        return False

    outcomes = run_together([partial(refused, each) for each in fleets])
    assert sorted(outcomes) == [False] * 3 + [True] * 3
    assert len(set(outcomes[::2])) == len(set(outcomes[1::2])) == 1
    assert fleets[0].fleet.registry.encodings().keys() == {"Kennel", "Visits"}
