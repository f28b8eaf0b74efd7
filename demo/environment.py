"""The demo's environment variables, isolated from the caller's settings."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Parts of the variable names that the library and the packages read; an application's name may precede them.
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
    """Replace all settings in the environment with these variables, inside the block.

    A setting of the caller could direct the demo to a database that it was not given.
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
