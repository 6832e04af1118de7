"""Scrape a site into a volume, once a day; transform it as often as the transformation changes.

    ingest (cached by its inputs) ──ROVolume──> clean ──ROVolume──> report

The pages are a value: the cache keeps which version they are, and the next step gets exactly that one.

Run it: python examples/prefect/scrape_and_transform.py
"""

import json
import re
import threading
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prefect import flow, task
from prefect.cache_policies import INPUTS

from volume_core import ROVolume, RWVolume, Volume
from volume_prefect import volumes

PAGES = {f"/{word}.html": f"<p>page <b>{word}</b></p>" for word in ("one", "two", "three")}
asked: Counter[str] = Counter()


class Site(BaseHTTPRequestHandler):
    """The site that is scraped: on this machine, so that the example needs no network."""

    def do_GET(self) -> None:
        asked[self.path] += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write((PAGES.get(self.path) or json.dumps(sorted(PAGES))).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@volumes
@task(cache_policy=INPUTS, persist_result=True, result_serializer="json")
def ingest(site: str, day: str) -> RWVolume:
    """Fetch every page; the same site and day again is the version that was made then."""
    raw = Volume.new("raw-pages")
    path = raw.mount_sync()
    for page in json.loads(urllib.request.urlopen(site).read()):
        (path / page.strip("/")).write_bytes(urllib.request.urlopen(site + page).read())
    return raw  # what is returned is committed


@volumes
@task
def clean(pages: RWVolume) -> RWVolume:
    """Take the markup out, in a fork of what came in; *pages* themselves stay as they are."""
    for page in sorted(pages.mount_sync().glob("*.html")):
        page.with_suffix(".txt").write_text(re.sub("<[^>]*>", " ", page.read_text()).strip())
        page.unlink()
    return pages


@flow
def pipeline(site: str, day: str) -> tuple[ROVolume, list[str]]:
    """Ingest, transform, and look at the result without mounting it."""
    pages = ingest(site, day)
    cleaned = clean(pages)
    return pages, [b"".join(cleaned.read_file_sync(each.path)).decode() for each in cleaned.listdir_sync("/")]


def main() -> None:
    """Run the pipeline twice for one day: the second run fetches nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    results = [pipeline(f"http://127.0.0.1:{server.server_port}", "2026-11-28") for _ in range(2)]
    print(results[0][1], "requests:", asked.total())
    assert results[0] == results[1] and asked.total() == 1 + len(PAGES)


if __name__ == "__main__":
    main()
