"""Shipped for those who write stores, drivers and adapters: contract suites, fault stores, an oracle."""
