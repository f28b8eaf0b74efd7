"""A tenant's weight is a number in its metadata; another value is refused, or ignored if it is there already."""

from __future__ import annotations

from typing import Any

import pytest

from tenancy.errors import InvalidArgument
from tenancy.model.weights import check_weight, weight_fault, weight_of


@pytest.mark.parametrize("weight", [1, 0.01, 2.5, 100])
def test_number_is_the_weight(weight: float) -> None:
    check_weight({"weight": weight})
    assert weight_of({"weight": weight}) == weight


@pytest.mark.parametrize("metadata", [{}, {"weight": None}, {"other": 7}])
def test_default(metadata: dict[str, Any]) -> None:
    check_weight(metadata)
    assert weight_of(metadata) == 1


@pytest.mark.parametrize("weight", [0, -1, 0.009, 100.1, True, "3", "heavy", [3], {"a": 1}, float("nan"), 10**400])
def test_other_values_are_refused_and_ignored(weight: object) -> None:
    with pytest.raises(InvalidArgument, match=r"metadata\['weight'\] is not a number from 0.01 to 100. Pass"):
        check_weight({"weight": weight})
    assert weight_fault({"weight": weight}) is not None
    assert weight_of({"weight": weight}) == 1
