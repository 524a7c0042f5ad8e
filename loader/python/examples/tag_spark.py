"""Finds the concepts of a table of captions with Spark: one row for each mention.

    spark-submit [--master ..] tag_spark.py CAPTIONS.parquet MENTIONS.parquet [--key key] [--caption caption]

Offsets count characters of the normalised caption. The workers need simzss-data and pyarrow.
"""

import argparse

from pyspark.sql import SparkSession

SCHEMA = "key string, phrase string, concept string, head string, start int, `end` int"


def mentions(batches):
    """The work of one task, which has one core: from record batches of keys and captions to those of mentions."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from simzss_data import tag

    for batch in batches:
        keys, captions = batch.columns
        found = pa.array(tag(captions, threads=1)["mentions"])
        rows = found.flatten()
        columns = {name: rows.field(name) for name in ("phrase", "concept", "head", "start", "end")}
        yield pa.RecordBatch.from_pydict({"key": keys.take(pc.list_parent_indices(found)), **columns})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("captions")
    parser.add_argument("mentions")
    parser.add_argument("--key", default="key")
    parser.add_argument("--caption", default="caption")
    options = parser.parse_args()
    spark = SparkSession.builder.appName("tag").getOrCreate()
    captions = spark.read.parquet(options.captions).selectExpr(f"cast(`{options.key}` AS string)", f"`{options.caption}`")
    captions.mapInArrow(mentions, SCHEMA).write.parquet(options.mentions)
    spark.stop()


if __name__ == "__main__":
    main()
