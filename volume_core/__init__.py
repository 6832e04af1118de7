"""Versioned, forkable, mountable file systems for workflow engines."""
