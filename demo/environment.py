"""The environment variables of the demo, without those of whoever runs it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Parts of the names of variables that the library or the package reads, with or without an application's name before.
SETTINGS = (
    "AGGREGATE_CACHE_",
    "CIPHER_",
    "COMPRESSOR_TOPIC",
    "CREATE_TABLE",
    "DEEPCOPY_FROM_AGGREGATE_CACHE",
    "FACTORY_TOPIC",
    "IS_SNAPSHOTTING_ENABLED",
    "ORIGINATOR_ID_TYPE",
    "PERSISTENCE_MODULE",
    "RECORDER_TOPIC",
    "SQLALCHEMY_",
    "TENANCY_",
    "TRANSCODER_TOPIC",
)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let these variables, and no others, be the settings of the applications that are made inside.

    A setting that came from outside could lead the demo into a database that it was not given.
    """
    before = dict(os.environ)
    for name in before:
        if any(part in name for part in SETTINGS):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
