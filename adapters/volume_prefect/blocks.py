"""Blocks: what an entry point of the group `prefect.collections` leads to."""
