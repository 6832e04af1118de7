"""Volumes as values of Prefect tasks and flows.

    from prefect import flow, task
    from volume_core import ROVolume, RWVolume, Volume
    from volume_prefect import volumes

    @volumes
    @task
    def make() -> RWVolume: ...          # what is returned is committed

    @volumes
    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Always true: to import this package does not import Prefect; each name is found when it is first used (PEP 562).
"""
