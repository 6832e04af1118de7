"""What lies in a store, one file per kind of object: bytes in, values out.

Pure: nothing here opens a file, fetches, waits or logs.  The layouts are written down in
docs/format/, and tests/format holds golden copies.
"""
