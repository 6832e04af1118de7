"""Places to read from, closed behind each test."""

from __future__ import annotations

import pytest
from packed import PLACES, Place


@pytest.fixture
def make_place(tmp_path):
    places = []

    def make(kind: str) -> Place:
        places.append(Place(kind, tmp_path / str(len(places))))
        return places[-1]

    yield make
    for place in places:
        for reader in place.readers:
            reader.close()
        place.store.close()


@pytest.fixture(params=PLACES)
def place(request, make_place):
    return make_place(request.param)


@pytest.fixture(params=["cached", "memory"])
def far(request, make_place):
    """A store that is not local."""
    return make_place(request.param)
