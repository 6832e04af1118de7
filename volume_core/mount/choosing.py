"""Which driver a mount gets: the best one that works here, unless one was asked for by name.

Always true: the choice is a function of the report and of what was asked; one line says which and why.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from volume_core.errors import MountError
from volume_core.mount.doctor import COPY, DRIVERS, DriverReport, Report

log = logging.getLogger(__name__)

AUTO = "auto"


class Choice(NamedTuple):
    """A driver's name, a line that says why, and the drivers to fall back to, best first, if it fails all the same."""

    driver: str
    reason: str
    others: tuple[str, ...] = ()


def choose(report: Report, wanted: str = AUTO, *, writable: bool = True) -> Choice:
    """Return the driver for a mount, and log the reason.

    *wanted* is "auto" or a driver's name; a name is taken at its word, and only refused where something
    it needs is known to be missing.  Raises MountError saying what to grant, ValueError for a name
    that is no driver's.
    """
    choice = _best(report, writable) if wanted == AUTO else _asked_for(report, wanted, writable)
    log.info("driver %s: %s", choice.driver, choice.reason)
    return choice


def _works(report: DriverReport, writable: bool) -> bool:
    return report.writes if writable else report.reads


def _best(report: Report, writable: bool) -> Choice:
    working = [each for each in report.drivers if _works(each, writable)]
    best = report.best(writable=writable)
    better = report.drivers[: report.drivers.index(best)]
    others = tuple(each.name for each in working if each is not best)
    if not better:
        return Choice(best.name, "the fastest, and nothing is missing for it here", others)
    reasons = "; ".join(f"{each.name} does not work here: {_obstacle(each, writable)}" for each in better)
    return Choice(best.name, f"{reasons} (volume doctor says how to grant it)", others)


def _obstacle(report: DriverReport, writable: bool) -> str:
    missing = [each.what for each in report.missing if writable or each.blocks == "both"]
    if not missing:
        return str(report.tried)
    return missing[0] + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")


def _asked_for(report: Report, wanted: str, writable: bool) -> Choice:
    if wanted not in DRIVERS:
        raise ValueError(f"driver {wanted!r} is not one of {', '.join((AUTO, *DRIVERS))}")
    found = report.driver(wanted)
    if _works(found, writable):
        return Choice(wanted, "asked for by name")
    missing = [each for each in found.missing if writable or each.blocks == "both"]
    lines = [f"{each.what}: {each.grant}" for each in missing] or [str(found.tried)]
    raise MountError(
        f"the driver {wanted} does not work here. "
        + ". ".join(lines)
        + f". The driver {COPY} works without any of this."
    )
