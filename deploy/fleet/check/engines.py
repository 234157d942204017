"""DuckDB, ClickHouse and a Spark cluster: each takes recordings and queries, and gives rows of text."""

import csv
import io
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pyspark

JOB = Path(__file__).parent.parent / "tcptrace_fleet.py"
SPARK = Path(pyspark.__file__).parent
WORKERS = 2


def rows(text):
    return list(csv.reader(io.StringIO(text)))[1:]


def duckdb(recordings, queries, scratch):
    import duckdb

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute(
        f"CREATE VIEW tcptrace AS SELECT * FROM read_parquet('{recordings}/**/*.parquet', "
        "hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"
    )
    for query in queries:
        answer = scratch / f"{query.stem}.csv"
        sql = query.read_text().rstrip().rstrip(";")
        con.execute(f"COPY ({sql}) TO '{answer}' (HEADER)")
        yield query.stem, rows(answer.read_text())


def clickhouse(recordings, queries, scratch):
    from chdb.session import Session

    session = Session(str(scratch))
    session.query("SET session_timezone = 'UTC', use_hive_partitioning = 1")
    session.query(f"CREATE VIEW tcptrace AS SELECT * FROM file('{recordings}/**/*.parquet', Parquet)")
    for query in queries:
        yield query.stem, rows(str(session.query(query.read_text(), "CSVWithNames")))
    session.close()


def spark(recordings, queries, scratch):
    """A master and two workers on loopback; the job is handed to them as it would be to any cluster."""
    environment = os.environ | {
        "SPARK_HOME": str(SPARK),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(scratch / "local"),
        "PYSPARK_PYTHON": sys.executable,
    }
    with ExitStack() as stack:

        def daemon(name, *args):
            log = scratch / f"{name}.log"
            command = [SPARK / "bin/spark-class", *args]
            with log.open("w") as file:
                child = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=scratch)
            stack.callback(child.wait)
            stack.callback(child.terminate)
            return log

        master = daemon(
            "master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"
        )
        url = await_line(master, "Starting Spark master at ").split()[-1]
        for number in range(WORKERS):
            worker = daemon(
                f"worker{number}",
                *["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", "0"],
                *["--cores", "1", "--memory", "1g", "--work-dir", scratch / f"work{number}", url],
            )
            await_line(worker, "Successfully registered with master")
        command = [SPARK / "bin/spark-submit", "--master", url, JOB, recordings, scratch / "answers", *queries]
        with (scratch / "job.log").open("w") as log:
            subprocess.run(command, check=True, env=environment, cwd=scratch, stdout=log, stderr=log)
    for number in range(WORKERS):
        assert list(scratch.glob(f"work{number}/app-*/*")), f"worker {number} had nothing to do"
    for query in queries:
        (part,) = scratch.glob(f"answers/{query.stem}/part-*.csv")
        yield query.stem, rows(part.read_text())


def await_line(log, words):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for line in log.read_text().splitlines():
            if words in line:
                return line
        time.sleep(0.1)
    raise TimeoutError(f"{log}: no line with: {words}")


ENGINES = {"duckdb": duckdb, "clickhouse": clickhouse, "spark": spark}
