"""Examine a fleet, report faults with remedies, and repair what is safe to repair automatically.

One module checks one subject. ``examination`` and ``repairs`` put them in order.
"""

from tenancy.operations.doctor.database import is_unreachable
from tenancy.operations.doctor.examination import examine
from tenancy.operations.doctor.finding import Finding, Level
from tenancy.operations.doctor.repairs import repair

__all__ = ["Finding", "Level", "examine", "is_unreachable", "repair"]
