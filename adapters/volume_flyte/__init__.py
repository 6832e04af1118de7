"""Volumes as values of Flyte tasks, for flytekit and for flyte 2.

    from flytekit import task
    from volume_core import ROVolume, RWVolume, Volume

    @task
    def make() -> RWVolume: ...          # what is returned is committed
    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Installing the package is all that is needed: both SDKs find the types by entry points.  What is here besides is for
pods, images, caches and retries.

Always true: to import this package imports neither SDK; each name is found when it is first used (PEP 562).
"""
