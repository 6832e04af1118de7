"""The first of three engines: a Prefect flow commits a volume and says where.

Run it: python examples/handover/scrape_with_prefect.py; then examples/airflow/hand_over.py with the locator it prints.
"""

from prefect import flow, task

from volume_core import RWVolume, Volume
from volume_prefect import volumes

PAGES = {"one": "to be or not to be", "two": "all the world is a stage"}


@volumes
@task
def scrape() -> RWVolume:
    """Stand in for a crawler."""
    pages = Volume.new("pages")
    path = pages.mount_sync()
    for name, text in PAGES.items():
        (path / f"{name}.txt").write_text(text)
    return pages


@flow
def main() -> str:
    """Scrape; return the locator."""
    return scrape().locator


if __name__ == "__main__":
    print(main())
