"""The middle of three: a Prefect flow has committed a volume, this DAG works on it, a Flyte workflow takes its result.

    examples/handover/scrape_with_prefect.py ──locator──> this DAG ──locator──> examples/handover/report_with_flyte.py

What goes from one engine to the next is a locator, a line of text; each has an environment of its own, and all that
they share is the store.  A version's history says which task of which engine made it, and from what.
"""

from airflow.sdk import Param, dag, task

from volume_core import RWVolume


@dag(schedule=None, params={"pages": Param(type="string", description="a locator, NAME, or vol:// URL")})
def hand_over() -> None:
    """Count words."""

    @task
    def count_words(pages: RWVolume) -> RWVolume:
        """Write a count beside each page; *pages* is a fork of what the run's parameter names."""
        path = pages.mount_sync()
        for page in sorted(path.glob("*.txt")):
            page.with_suffix(".count").write_text(str(len(page.read_text().split())))
        return pages

    @task
    def locator(counted: RWVolume) -> str:
        """Return what the next engine is given: nothing was written, so it is that very version."""
        return counted.finalize_sync().locator

    locator(count_words("{{ params.pages }}"))


hand_over()
