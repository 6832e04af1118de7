"""All the ways in which a volume goes from task to task, for a run by a real executor."""

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task

from volume_core import ROVolume, RWVolume, Volume


class Sleeps(BaseOperator):
    """Writes, hands itself over to a trigger, and goes on writing in another process."""

    def execute(self, context):
        """Write, and wait."""
        work = Volume.new("crossed")
        (work.mount_sync() / "before").write_text("1")
        # So long that the scheduler has heard of the deferral: Airflow takes a task for failed that is running again
        # when it hears that its process has ended.
        trigger = TimeDeltaTrigger(datetime.timedelta(seconds=15))
        self.defer(trigger=trigger, method_name="wake", kwargs={"work": work})

    def wake(self, context, work, event=None):
        """Go on."""
        assert isinstance(work, RWVolume)
        (work.mount_sync() / "after").write_text("2")
        return work


@dag(schedule=None)
def all_ways():
    """Each task is a process of its own."""

    @task
    def make() -> RWVolume:
        made = Volume.new("base")
        (made.mount_sync() / "numbers").write_text("1 2 3")
        return made

    @task
    def shard(base: RWVolume, number: int) -> RWVolume:
        (base.mount_sync() / f"part-{number}").write_text(str(number))
        return base

    @task
    def join(parts: list[ROVolume]) -> ROVolume:
        return Volume.merge_sync(list(parts), name="joined", message="all parts")

    @task
    def push():
        context = get_current_context()
        beside = Volume.new("beside")
        (beside.mount_sync() / "note").write_text("pushed")
        context["ti"].xcom_push("side", beside)

    @task(retries=1, retry_delay=datetime.timedelta(seconds=0))
    def fails_once(base: RWVolume) -> RWVolume:
        path = base.mount_sync()
        attempt = get_current_context()["ti"].try_number
        (path / f"try-{attempt}").write_text("x")
        if attempt == 1:
            raise RuntimeError("the first try fails")
        return base

    @task
    def look(joined: ROVolume, crossed: ROVolume, tried: ROVolume) -> dict[str, list[str]]:
        return {each.name: sorted(entry.name for entry in each.listdir_sync("/")) for each in (joined, crossed, tried)}

    base = make()
    joined = join(shard.partial(base=base).expand(number=[1, 2]))
    push()
    look(joined, Sleeps(task_id="sleeps").output, fails_once(base))
    BashOperator(task_id="list_files", bash_command="ls | tr '\n' ' '", cwd=joined)


all_ways()
