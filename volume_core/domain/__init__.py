"""What versions are and how they differ: nouns that decide and never do I/O of their own."""
