"""Runs a command of `ingest` on a Spark cluster, one task for each part; the part of a lost task is run again.

    spark-submit [--master ..] parts_spark.py PARTS ingest download list.parquet --out s3://bucket/shards
    spark-submit [--master ..] parts_spark.py PARTS ingest tag s3://bucket/shards

All machines need `ingest` (pip install simzss-ingest), and see the same input and output. A part that is run again makes only what
is missing. Spark gives up after `spark.task.maxFailures` failures of one part (4; on one machine with --master 'local[CORES,4]').
`ingest` uses all cores, so let a task have those of a machine: `--conf spark.task.cpus=..`.
"""

import subprocess
import sys

from pyspark.sql import SparkSession


def run(command, part, parts):
    done = subprocess.run([*command, "--index", str(part), "--count", str(parts)], stderr=subprocess.PIPE, text=True)
    last = done.stderr.strip().rpartition("\n")[2]
    if done.returncode:
        raise RuntimeError(f"part {part} of {parts} ended with exit code {done.returncode}: {last}")
    return f"part {part} of {parts}: {last}"


def main():
    parts, command = int(sys.argv[1]), sys.argv[2:]
    spark = SparkSession.builder.appName(" ".join(command[:2])).getOrCreate()
    tasks = spark.sparkContext.parallelize(range(parts), parts)
    print(*tasks.map(lambda part: run(command, part, parts)).collect(), sep="\n")
    spark.stop()


if __name__ == "__main__":
    main()
