"""`tag`: Arrow in and out, with the libraries that people have."""

import hashlib
import pickle
import shutil

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
import simzss_data
from simzss_data import Bank, tag

from conftest import COUNTS, caption, serve

CAPTIONS = ["Two tiny Rubber Ducks near snow", None, "", "A CAFÉ &amp;  a stop-sign", "run"]


def concepts(rows):
    return [row["mentions"] and [mention["concept"] for mention in row["mentions"]] for row in rows]


def test_a_list_of_texts():
    result = tag(CAPTIONS)
    rows = result.to_pylist()
    assert len(result) == len(CAPTIONS) == len(rows)
    assert rows[0] == {
        "text": "two tiny rubber ducks near snow",
        "mentions": [
            {"phrase": "two tiny rubber ducks", "concept": "rubber duck", "head": "duck", "start": 0, "end": 21,
             "concept_start": 9, "concept_end": 21, "tags": "CD JJ NN NNS"},
            {"phrase": "snow", "concept": "snow", "head": "snow", "start": 27, "end": 31,
             "concept_start": 27, "concept_end": 31, "tags": "NN"},
        ],
    }
    assert rows[1] == {"text": None, "mentions": None}
    assert rows[2] == {"text": "", "mentions": []}
    assert tag([]).to_pylist() == []
    assert pa.array(tag([])).type == pa.array(result).type


def test_offsets_are_characters_or_bytes():
    text = "Ein Café 🦜 with a green PARROT, \u201ca dog\u201d"
    for offsets, encode in [("characters", str), ("bytes", str.encode)]:
        (row,) = tag([text], offsets=offsets).to_pylist()
        canonical = encode(row["text"])
        assert len(row["mentions"]) >= 3
        for mention in row["mentions"]:
            assert canonical[mention["start"] : mention["end"]] == encode(mention["phrase"])
            assert mention["start"] <= mention["concept_start"] < mention["concept_end"] <= mention["end"]
    with pytest.raises(ValueError, match="offsets"):
        tag([text], offsets="tokens")


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
     pa.dictionary(pa.int8(), pa.large_string())],
    ids=str,
)
def test_every_type_of_text(kind):
    expected = tag(CAPTIONS).to_pylist()
    array = pa.array(CAPTIONS * 2).cast(kind) if "view" not in str(kind) else pa.array(CAPTIONS * 2, kind)
    assert pa.array(tag(array)).to_pylist() == expected * 2
    assert tag(array[3:7]).to_pylist() == (expected * 2)[3:7], "a slice"
    chunked = pa.chunked_array([array, array[:0], array[2:]])
    assert pa.array(tag(chunked)).to_pylist() == expected * 2 + (expected * 2)[2:]


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="Int64"):
        tag(pa.array([1, 2]))
    with pytest.raises(TypeError):
        tag([1])
    with pytest.raises(TypeError, match="one text"):
        tag("a dog")
    with pytest.raises(TypeError):
        tag(7)
    with pytest.raises(ValueError, match="no tagger"):
        tag(["a dog"], tagger="spacy")
    assert tag(pa.nulls(2)).to_pylist() == [{"text": None, "mentions": None}] * 2


def test_text_that_is_not_utf8_is_refused():
    array = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(ValueError, match="not valid"):
        tag(array)


def test_threads_change_nothing():
    captions = [f"A photo of {n} red dogs, {n % 7} cafés and the tall tree" for n in range(10_000)]
    one = pa.array(tag(pa.array(captions), threads=1))
    assert one.equals(pa.array(tag(captions, threads=4)))
    one.validate(full=True)
    assert one.field("text").to_pylist()[9_999] == "a photo of 9999 red dogs, 3 cafés and the tall tree"
    assert one.equals(pa.array(tag(pa.chunked_array([captions[:777], captions[777:]]))))


def test_labels_of_a_bank():
    bank = Bank(["stop sign", "duck", "rubber duck", "café"])
    rows = tag(CAPTIONS, bank=bank).to_pylist()
    labels = [[mention["label"] for mention in row["mentions"] or []] for row in rows]
    assert labels == [[2, None], [], [], [3, 0], []]
    sign = rows[3]["mentions"][1]
    assert rows[3]["text"][sign["label_start"] : sign["label_end"]] == "stop-sign"
    assert tag(["rubber ducks"], bank=Bank(["duck"], "strict")).to_pylist()[0]["mentions"][0]["label"] is None
    assert (len(bank), bank.names[0], bank.matching) == (4, "stop sign", "longest")
    assert bank.find("two tiny rubber ducks", "rubber duck", "duck") == 2 and bank.find("a dog") is None
    copy = pickle.loads(pickle.dumps(Bank(["a", "b"], "strict")))
    assert (copy.names, copy.matching) == (["a", "b"], "strict")
    with pytest.raises(ValueError):
        Bank([])
    with pytest.raises(FileNotFoundError):
        Bank.from_file("missing.txt")


def test_columns_and_pieces():
    result = tag(CAPTIONS)
    assert pa.array(result["text"]).to_pylist()[0] == "two tiny rubber ducks near snow"
    mentions = pa.array(result["mentions"])
    assert mentions.flatten().field("concept").to_pylist() == ["rubber duck", "snow", "café", "stop-sign"]
    with pytest.raises(KeyError):
        result["phrases"]
    schema = pa.schema(pa.DataType._import_from_c_capsule(result.__arrow_c_schema__()).fields)
    assert schema.names == ["text", "mentions"]


def test_duckdb():
    con = duckdb.connect()
    mention = "STRUCT(phrase VARCHAR, concept VARCHAR, head VARCHAR, \"start\" INTEGER, \"end\" INTEGER, " \
        "concept_start INTEGER, concept_end INTEGER, tags VARCHAR)"
    con.create_function(
        "tag", lambda captions: pa.array(tag(captions)), parameters=["VARCHAR"],
        return_type=f'STRUCT("text" VARCHAR, mentions {mention}[])', type="arrow", null_handling="special",
    )
    con.execute("CREATE TABLE captions AS SELECT 'a photo of ' || range || ' red dogs' AS caption FROM range(10000)")
    con.execute("INSERT INTO captions VALUES (NULL)")
    counted = con.sql(
        "SELECT concept, count(*) FROM (SELECT unnest(tag(caption).mentions).concept AS concept FROM captions) "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert counted.fetchall() == [("dog", 10_000), ("photo", 10_000)]
    assert con.sql("SELECT count(*) FROM captions WHERE tag(caption) IS NULL OR tag(caption).text IS NULL").fetchall() == [(1,)]


def test_polars():
    frame = pl.DataFrame({"caption": CAPTIONS * 1000})
    expected = tag(CAPTIONS).to_pylist()
    result = pl.Series(tag(frame["caption"]))
    assert concepts(result.head(5).to_list()) == concepts(expected)
    lazy = frame.lazy().with_columns(
        pl.col("caption").map_batches(lambda captions: pl.Series(tag(captions)), return_dtype=result.dtype).alias("tagged")
    )
    top = (
        lazy.select(pl.col("tagged").struct.field("mentions").explode().struct.field("concept"))
        .drop_nulls().group_by("concept").len().sort("concept").collect()
    )
    assert top.rows() == [("café", 1000), ("rubber duck", 1000), ("snow", 1000), ("stop-sign", 1000)]


def test_batches_as_spark_gives_them():
    """mapInArrow: an iterator over record batches to one of other lengths."""

    def mentions(batches):
        for batch in batches:
            tagged = pa.array(tag(batch.column("caption"), threads=1)).field("mentions")
            rows = pa.compute.list_parent_indices(tagged)
            yield pa.RecordBatch.from_arrays(
                [batch.column("id").take(rows), tagged.flatten().field("concept")], ["id", "concept"]
            )

    table = pa.table({"id": range(10), "caption": CAPTIONS * 2})
    result = pa.Table.from_batches(mentions(table.to_batches(max_chunksize=4)))
    assert result.to_pydict()["id"] == [0, 0, 3, 3, 5, 5, 8, 8]


def test_sidecars_are_written_and_read(folder):
    shards = simzss_data.list_shards([folder])
    assert shards == sorted(map(str, folder.glob("*.tar")))
    written = [simzss_data.write_sidecar(shard) for shard in shards]
    table = pa.table(simzss_data.read_mentions(folder))
    assert table.num_rows == sum(sidecar["mentions"] for sidecar in written)
    assert table.column_names[:5] == ["shard", "key", "sample", "phrase", "concept"]
    assert table.to_pylist() == simzss_data.read_mentions(shards).to_pylist()
    for sidecar in written:
        file = pq.read_table(sidecar["path"])
        of_shard = table.filter(pa.compute.equal(table["shard"].cast("string"), str(sidecar["path"]).replace(".concepts.parquet", ".tar")))
        names = file.column_names
        plain = [pa.table({name: part[name].cast("string") if pa.types.is_dictionary(part[name].type) else part[name]
                           for name in names}) for part in (file, of_shard)]
        assert plain[0].to_pylist() == plain[1].to_pylist()
    mentions = simzss_data.read_mentions(folder)
    assert duckdb.sql("SELECT count(*) FROM mentions").fetchall() == [(table.num_rows,)]
    with pytest.raises(FileNotFoundError):
        simzss_data.write_sidecar(folder / "missing.tar")


def test_sidecars_of_remote_shards(folder, tmp_path):
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    with serve(tmp_path) as address:
        for shard in simzss_data.list_shards([folder]):
            name = shard.rpartition("/")[2]
            written = simzss_data.write_sidecar(f"{address}/{name}")
            local = simzss_data.write_sidecar(shard)
            assert written.pop("path") == f"{address}/{name}".replace(".tar", ".concepts.parquet")
            path = local.pop("path")
            assert written == local
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
            digest = hashlib.sha256((tmp_path / path.name).read_bytes()).hexdigest()
            assert digest in (tmp_path / name.replace(".tar", ".sha256")).read_text()
        with pytest.raises(FileNotFoundError):
            simzss_data.write_sidecar(f"{address}/missing.tar")
    with serve(tmp_path, writable=False) as address, pytest.raises(OSError, match="405"):
        simzss_data.write_sidecar(f"{address}/00000.tar")


def test_statistics(folder):
    for shard in simzss_data.list_shards([folder]):
        simzss_data.write_sidecar(shard)
    statistics = simzss_data.statistics(folder)
    table = pa.table(simzss_data.read_mentions(folder))
    assert statistics.totals["mentions"] == table.num_rows and statistics.totals["samples"] == 48
    counted = table["concept"].cast("string").value_counts().to_pylist()
    expected = sorted(((-row["counts"], row["values"]) for row in counted))
    rows = statistics.concepts.to_pylist()
    assert [(-row["mentions"], row["concept"]) for row in rows] == expected
    pairs = pa.table(statistics.pairs)
    assert pairs.num_rows == statistics.totals["pairs"] and set(pairs.column_names) == {"a", "b", "samples", "pmi"}


def test_mentions_of_another_tagger(folder, tmp_path):
    shard = shutil.copy(folder / "00001.tar", tmp_path)
    simzss_data.write_sidecar(shard)
    expected = simzss_data.read_mentions(shard).to_pylist()
    captions = [caption(1, sample) for sample in range(COUNTS[1])]
    for kind in (lambda rows: rows, lambda rows: pa.array(rows), lambda rows: pl.Series(rows["mentions"])):
        for offsets in ("characters", "bytes"):
            mentions = kind(tag(captions, offsets=offsets))
            simzss_data.write_sidecar(shard, mentions, tagger="mine", offsets=offsets)
            assert simzss_data.read_mentions(shard).to_pylist() == expected
    digest = hashlib.sha256((tmp_path / "00001.concepts.parquet").read_bytes()).hexdigest()
    assert digest in (tmp_path / "00001.sha256").read_text()

    rows = [[{"start": 0, "end": 2, "concept": "brown leather"}]] * COUNTS[1]
    simzss_data.write_sidecar(shard, pa.array(rows), tagger="mine")
    row = simzss_data.read_mentions(shard).to_pylist()[0]
    assert (row["head"], row["concept"], row["tags"], row["phrase_end"], row["concept_end"]) == ("leather", "brown leather", "", 2, 2)
    before = simzss_data.read_mentions(shard).to_pylist()

    with pytest.raises(ValueError, match="has 9 samples, but mentions are given for 10"):
        simzss_data.write_sidecar(shard, pa.array([*rows, []]), tagger="mine")
    with pytest.raises(ValueError, match="1-008: no mentions"):
        simzss_data.write_sidecar(shard, pa.array(rows[:-1]), tagger="mine")
    for start, end in [(5, 2), (-1, 2), (0, 999), (3, 3)]:
        with pytest.raises(ValueError, match="1-000: .* is no part of its normalised caption"):
            wrong = [[{"start": start, "end": end, "concept": "x"}], *rows[1:]]
            simzss_data.write_sidecar(shard, pa.array(wrong), tagger="mine")
    with pytest.raises(ValueError, match="no column concept"):
        simzss_data.write_sidecar(shard, pa.array([[{"start": 0, "end": 2}]] * COUNTS[1]), tagger="mine")
    with pytest.raises(ValueError, match="name of the tagger"):
        simzss_data.write_sidecar(shard, pa.array(rows))
    with pytest.raises(TypeError, match="list of structs"):
        simzss_data.write_sidecar(shard, pa.array(captions), tagger="mine")
    with pytest.raises(TypeError, match="no Arrow data"):
        simzss_data.write_sidecar(shard, rows, tagger="mine")
    assert simzss_data.read_mentions(shard).to_pylist() == before, "a sidecar appears completely or not at all"
