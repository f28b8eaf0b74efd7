"""Django has one configuration in a process: let each user have one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.urls import clear_url_caches, set_urlconf
from django.utils.functional import empty


@contextmanager
def unconfigured_django() -> Iterator[None]:
    """Remove Django's configuration in the block, and restore it afterwards."""
    before = settings._wrapped  # noqa: SLF001 (Django has no other way)
    settings._wrapped = empty  # noqa: SLF001 (as above)
    clear_url_caches()
    try:
        yield
    finally:
        settings._wrapped = before  # noqa: SLF001 (as above)
        clear_url_caches()
        set_urlconf(None)
