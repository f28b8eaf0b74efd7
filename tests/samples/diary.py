"""An application whose events say whose they are.

All tenants have an aggregate with the same id, so that a reader that looks into another tenant's tables finds another
name there, and not nothing.
"""

from __future__ import annotations

from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

_COVER: Final = UUID(int=1)


class Page(Aggregate):
    """Says whose it is."""

    @event("Written")
    def __init__(self, owner: str) -> None:
        self.owner = owner


class Cover(Page):
    """The page with the same id in every diary."""

    @staticmethod
    def create_id(**_: Any) -> UUID:
        """Return the one id."""
        return _COVER


class Diary(Application[UUID]):
    """One tenant's pages."""

    def begin(self, owner: str) -> None:
        """Record the cover."""
        self.save(Cover(owner))

    def owner(self) -> str:
        """Return whose the cover is."""
        cover: Cover = self.repository.get(_COVER)
        return cover.owner

    def write(self, owner: str) -> str:
        """Record a page, and return whose it is."""
        page = Page(owner)
        self.save(page)
        written: Page = self.repository.get(page.id)
        return written.owner

    def owners(self) -> set[str]:
        """Return whose all pages are."""
        ids = {
            cast("UUID", each.originator_id) for each in self.recorder.select_notifications(start=None, limit=1_000_000)
        }
        pages: list[Page] = [self.repository.get(page_id) for page_id in ids]
        return {page.owner for page in pages}
