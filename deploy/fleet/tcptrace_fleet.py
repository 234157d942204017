#!/usr/bin/env python3
"""Runs the queries beside it over recordings of many hosts, on a Spark cluster.

    spark-submit --master spark://MASTER:7077 tcptrace_fleet.py RECORDINGS OUTPUT [QUERY.sql ...]

RECORDINGS is the folder that has the host=... folders, OUTPUT one to be made; both are whatever Spark reads and
writes, and all workers must reach them: s3a://..., hdfs://..., a shared file system. Each query's answer becomes a
folder of CSV with a header. Without a QUERY it runs all that lie beside this file.
"""

import argparse
from pathlib import Path

from pyspark.sql import SparkSession


def open_recordings(spark, recordings):
    """Makes the view that the queries ask."""
    # Folder names stay text, so that a host named 007 is none named 7. Older recordings may lack a column.
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    spark.read.option("mergeSchema", "true").parquet(recordings).createOrReplaceTempView("tcptrace")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings")
    parser.add_argument("output")
    parser.add_argument("queries", nargs="*", type=Path, default=sorted(Path(__file__).parent.glob("*.sql")))
    args = parser.parse_args()

    # The hours of recordings are UTC.
    spark = SparkSession.builder.appName("tcptrace").config("spark.sql.session.timeZone", "UTC").getOrCreate()
    open_recordings(spark, args.recordings)
    for query in args.queries:
        answer = spark.sql(query.read_text())
        # One file keeps the order; answers are small beside what is asked.
        writer = answer.coalesce(1).write.option("timestampFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX")
        writer.csv(f"{args.output.rstrip('/')}/{query.stem}", header=True)
        print(f"{query.stem}: written", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
