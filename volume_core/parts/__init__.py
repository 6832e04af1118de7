"""The verbs: scanning, packing, committing, reading, caching, compacting, checking."""
