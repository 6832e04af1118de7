"""Tools that know files and nothing else, on volumes: SQL in a database that is a file, and a shell's commands.

    raw (two CSV files) ──> warehouse (raw, and shop.db) ──> sqlite: a query     (what it returns is an XCom)
                                                          └─> bash: a command   (its directory is the version)

A volume is a path wherever one is wanted, so an operator that takes a directory takes a version.
"""

import contextlib
import csv
import sqlite3

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

from volume_core import ROVolume, RWVolume, Volume

ORDERS = "id,customer,euros\n1,1,30\n2,2,20\n3,1,12\n"
CUSTOMERS = "id,name\n1,Ada\n2,Grace\n"


@dag(schedule=None)
def sql_on_files() -> None:
    """Load, query, count."""

    @task
    def extract() -> RWVolume:
        """Write what an export would be."""
        raw = Volume.new("raw")
        path = raw.mount_sync()
        (path / "orders.csv").write_text(ORDERS)
        (path / "customers.csv").write_text(CUSTOMERS)
        return raw

    @task
    def load(raw: RWVolume) -> RWVolume:
        """Put a database beside the files.  *raw* is a fork of what was given, and keeps its name."""
        path = raw.mount_sync()
        with contextlib.closing(sqlite3.connect(path / "shop.db")) as shop, shop:
            for table in ("orders", "customers"):
                with (path / f"{table}.csv").open() as file:
                    head, *rows = csv.reader(file)
                shop.execute(f"CREATE TABLE {table} ({', '.join(head)})")
                shop.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(head))})", rows)
        return raw

    @task
    def revenue(warehouse: ROVolume) -> dict[str, int]:
        """Query the database where it lies: of a large one only the pages that the query needs are fetched."""
        file = warehouse.mount_sync() / "shop.db"
        # A version cannot change, so nothing has to be locked.
        with contextlib.closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as shop:
            query = "SELECT name, sum(euros) FROM orders JOIN customers ON customer = customers.id GROUP BY name"
            return dict(shop.execute(query).fetchall())

    warehouse = load(extract())
    revenue(warehouse)
    BashOperator(task_id="largest", bash_command="tail -n +2 orders.csv | sort -t, -k3 -n | tail -n 1", cwd=warehouse)


sql_on_files()
