"""What flytekit's entry point `flytekit.plugins` loads.

Always true: to import this never raises: an exception here would break `import flytekit` for everyone.
"""
