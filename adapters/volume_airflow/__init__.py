"""Volumes as values of Airflow's tasks: with the package installed, a task that returns one hands its version on.

    from airflow.sdk import dag, task
    from volume_core import ROVolume, RWVolume, Volume

    @task
    def make() -> RWVolume: ...          # what is returned is committed

    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Always true: to import this package does not import Airflow.
"""
