"""Adds the normalised captions and their mentions to a table with Ray Data: the columns `text` and `mentions`.

    python tag_ray.py CAPTIONS.parquet TAGGED_FOLDER [--caption caption]

Runs on the cluster of RAY_ADDRESS, else on this machine. The workers need simzss-data.
"""

import argparse

import ray


def tagged(table, caption):
    """The work of one task, which has one core: a PyArrow table with two more columns."""
    import pyarrow as pa
    from simzss_data import tag

    found = pa.array(tag(table[caption], threads=1))
    for name in ("text", "mentions"):
        table = table.append_column(name, found.field(name))
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("captions")
    parser.add_argument("tagged")
    parser.add_argument("--caption", default="caption")
    options = parser.parse_args()
    captions = ray.data.read_parquet(options.captions)
    captions.map_batches(tagged, batch_format="pyarrow", fn_args=[options.caption]).write_parquet(options.tagged)


if __name__ == "__main__":
    main()
