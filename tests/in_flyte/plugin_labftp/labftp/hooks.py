"""What volume_core asks this package: the store of a URL."""

from volume_core import hookimpl


@hookimpl
def volume_open_store(url, options):
    if not url.startswith("labftp://"):
        return None
    from labftp.store import LabFtpStore
    from volume_core.storage.retrying import Retrying

    return Retrying(LabFtpStore(url))
