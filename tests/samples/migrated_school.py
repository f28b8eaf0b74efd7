"""A fleet with migrations, as the processes of jobs load it."""

from __future__ import annotations

from tenancy import Tenancy
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import CountersView, DogCounters


def fleet() -> Tenancy:
    """Return the fleet; TENANCY_MIGRATIONS names the revisions."""
    tenants = Tenancy(applications=[TrainingSchool])
    tenants.project(TrainingSchool, DogCounters, CountersView)
    return tenants
