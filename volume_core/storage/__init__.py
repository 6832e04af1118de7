"""The store: flat names to immutable bytes, behind one protocol, opened by URL scheme."""
