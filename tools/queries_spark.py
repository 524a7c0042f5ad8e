"""The queries of queries.sql by Spark, on the same files as `tools sql` and DuckDB.

    spark-submit [--master ..] tools/queries_spark.py SHARDS STATISTICS [NAME ..]

SHARDS is a folder of tagged shards, STATISTICS what `tools stats` wrote; on a file system that all machines see, or in a store that Spark
is set up for. Prints one line of JSON for each query, or only for those of these names: {"query": NAME, "rows": [..]}.
"""

import argparse
import decimal
import json
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

# Spark has no unnest.
IN_SPARK = {
    "adjectives": """
        SELECT head, word, count(*) AS times
        FROM mentions LATERAL VIEW posexplode(split(phrase, ' ')) AS place, word
        WHERE head IN ('cat', 'dog') AND split(tags, ' ')[place] = 'JJ'
        GROUP BY head, word
        ORDER BY head, times DESC, word
        LIMIT 20
    """,
}


def queries():
    """Name and text of each query."""
    parts = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8").split("\n-- ")[1:]
    named = [part.partition("\n")[::2] for part in parts if "SELECT" in part]
    return {title.partition(":")[0]: query.strip().rstrip(";") for title, query in named}


def views(spark, shards, statistics):
    """The tables of `tools sql`. The pattern of samples leaves out sidecars and signals, whose names have one more part."""

    def of_shards(pattern):
        rows = spark.read.option("mergeSchema", True).parquet(f"{shards}/{pattern}.parquet")
        # The file name up to the first dot.
        return rows.select(f.substring_index("_metadata.file_name", ".", 1).alias("shard"), "*")

    samples, mentions = of_shards("[0-9]*[0-9]"), of_shards("*.concepts")
    samples.createOrReplaceTempView("samples")
    mentions.createOrReplaceTempView("mentions")
    for name in ("concepts", "pairs"):
        spark.read.parquet(f"{statistics}/{name}.parquet").createOrReplaceTempView(name)
    # Spark does not read the footers of sidecars, where `tools sql` finds the two counts of mentions.
    counts = spark.read.schema("count BIGINT, successes BIGINT").option("multiLine", True).json(f"{shards}/*_stats.json")
    counts = counts.select(f.substring_index("_metadata.file_name", "_", 1).alias("shard"), "*")
    tagged = mentions.groupBy("shard").agg(
        f.count("*").alias("mentions"), f.countDistinct("sample").alias("with_mention")
    )
    tars = spark.read.format("binaryFile").load(f"{shards}/*.tar*")
    tars = tars.select(f.substring_index("_metadata.file_name", ".", 1).alias("shard"), f.col("length").alias("bytes"))
    tars.join(counts, "shard", "left").join(tagged, "shard", "left").selectExpr(
        "shard", "count", "successes", "coalesce(mentions, 0) AS mentions",
        "successes - coalesce(with_mention, 0) AS captions_without_mention", "bytes",
    ).createOrReplaceTempView("shards")


def plain(value):
    """A value of JSON. Spark reads unsigned numbers of 64 bits, the counts of the statistics, as decimals."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == int(value) else float(value)
    return value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("statistics")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    known = queries()
    if unknown := set(options.names) - set(known):
        parser.error(f"there is no query {min(unknown)}; the queries are {', '.join(known)}")
    spark = SparkSession.builder.appName("queries").getOrCreate()
    views(spark, options.shards, options.statistics)
    for name, query in known.items():
        if options.names and name not in options.names:
            continue
        rows = spark.sql(IN_SPARK.get(name, query)).collect()
        rows = [{column: plain(value) for column, value in row.asDict().items()} for row in rows]
        print(json.dumps({"query": name, "rows": rows}, ensure_ascii=False), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
