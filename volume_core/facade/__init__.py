"""What stands behind the public classes: handles, writers, readers, records, and the two spellings of a method.

`volume_core.volumes` is the face; nothing here is called by users.
"""
