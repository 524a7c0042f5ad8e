"""Adds the normalised captions and their mentions to a table with Hugging Face's datasets: the columns `text` and `mentions`.

    python tag_datasets.py CAPTIONS.parquet TAGGED.parquet [--caption caption] [--processes 1]
"""

import argparse

import datasets


def tagged(table, caption, threads):
    """A PyArrow table with two more columns."""
    import pyarrow as pa
    from simzss_data import tag

    found = pa.array(tag(table[caption], threads=threads))
    for name in ("text", "mentions"):
        table = table.append_column(name, found.field(name))
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("captions")
    parser.add_argument("tagged")
    parser.add_argument("--caption", default="caption")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    captions = datasets.Dataset.from_parquet(options.captions).with_format("arrow")
    # One process tags with all cores; several have one each.
    arguments = {"caption": options.caption, "threads": None if options.processes == 1 else 1}
    several = None if options.processes == 1 else options.processes
    captions.map(tagged, batched=True, batch_size=10_000, num_proc=several, fn_kwargs=arguments).to_parquet(options.tagged)


if __name__ == "__main__":
    main()
