//! `tools sql`: the queries of `tools/queries.sql` give the same rows as DuckDB with the views of `tools/duckdb.sql`,
//! and queries that cannot be answered end with an error of one line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dataset;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::UInt64Type;
use loader::shards::signals::Signals;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use tests::store::Store;
use tests::{program, real_data, refused, run, summary, text};

use dataset::{queries, same, small_set, tag, widen};

/// A version that the tests pass with; others probably work too.
const DUCKDB: &str = "1.5.6";

/// Runs the queries on standard input, a JSON list, in the folder of shards; prints a list of lists of rows.
const RUN: &str = "
import duckdb, json, sys
views, queries = json.load(sys.stdin)
database = duckdb.connect()
database.execute(views)
answers = []
for query in queries:
    rows = database.execute(query)
    names = [column[0] for column in rows.description]
    answers.append([dict(zip(names, row)) for row in rows.fetchall()])
print(json.dumps(answers))
";

/// A table of 2 MB that has 20 million rows, all the same. Most of it is bytes in the footer that nobody reads: a file without them is
/// refused for its size.
fn equal_rows(path: &Path) {
    const AT_ONCE: usize = 1_000_000;
    let column = |value: &str| -> ArrayRef {
        let values = Arc::new(StringArray::from(vec![value]));
        Arc::new(DictionaryArray::new(Int32Array::from(vec![0; AT_ONCE]), values))
    };
    let row = [("key", "000000000"), ("status", "success"), ("caption", "a ball on the grass")];
    let batch = RecordBatch::try_from_iter(row.map(|(name, value)| (name, column(value)))).unwrap();
    let padding = KeyValue::new("padding".to_owned(), "x".repeat(2 << 20));
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![padding])).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    for _ in 0..20 {
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn millions_of_equal_rows_are_counted_with_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let set = small_set(folder.path());
    equal_rows(&set.join("00000.parquet"));
    fs::remove_file(set.join("00000.sha256")).unwrap();
    let query =
        "SELECT count(*) AS rows, count(DISTINCT caption) AS captions FROM samples WHERE status = 'success'";
    // kB of address space; the rows would take more.
    let limited = "ulimit -v 8000000; exec \"$@\"";
    let output = Command::new("bash")
        .args(["-c", limited, "bash", text(&program("tools")), "sql", query, text(&set), "--format", "json"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // In the other shards, three images can be read.
    assert_eq!(answer, json!({"rows": 20_000_003, "captions": 4}));
}

/// The folder of a Python package of DuckDB; `None`, after printing the reason, where it cannot be installed.
fn duckdb() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("duckdb-{DUCKDB}"));
    if folder.exists() {
        return Some(folder);
    }
    // In a temporary folder first, so that an interrupted installation is never used.
    let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let wanted = format!("duckdb=={DUCKDB}");
    let installed = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
        .args([text(new.path()), &wanted])
        .output();
    let why = match installed {
        Ok(output) if output.status.success() => {
            // Fails if another test has installed it in the meantime, which is fine.
            let _ = fs::rename(new.path(), &folder);
            return Some(folder);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("CI").is_none(), "pip cannot install {wanted}: {why}");
    eprintln!("skipped: pip cannot install {wanted}: {why}");
    None
}

/// DuckDB's rows for each query.
fn ask_duckdb(duckdb: &Path, set: &Path, queries: &[&str]) -> Vec<Vec<Value>> {
    let views = include_str!("../../duckdb.sql");
    let input = set.join("input.json");
    fs::write(&input, json!([views, queries]).to_string()).unwrap();
    let output = Command::new("python3")
        .args(["-c", RUN])
        .current_dir(set)
        .env("PYTHONPATH", duckdb)
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    fs::remove_file(input).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rows of `tools sql` for a query.
fn ask_tools(set: &Path, query: &str) -> Vec<Value> {
    let output = run("tools", &["sql", query, text(set), "--format", "json"]);
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout).unwrap();
    rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares the rows of both engines for every query; returns the number of rows of each.
fn compare(duckdb: &Path, set: &Path) -> Vec<(&'static str, usize)> {
    let mut queries = queries();
    // All rows of all tables as well.
    queries.extend([
        ("samples", "SELECT * FROM samples ORDER BY key"),
        ("mentions", "SELECT * FROM mentions ORDER BY key, phrase_start"),
        ("shards", "SELECT * FROM shards ORDER BY shard"),
        ("concepts", "SELECT * FROM concepts ORDER BY concept"),
        ("pairs", "SELECT * FROM pairs ORDER BY a, b"),
    ]);
    let texts: Vec<&str> = queries.iter().map(|(_, query)| *query).collect();
    let answers = ask_duckdb(duckdb, set, &texts);
    assert_eq!(answers.len(), queries.len());
    let mut sizes = Vec::new();
    for ((name, query), expected) in queries.into_iter().zip(answers) {
        let rows = ask_tools(set, query);
        assert_eq!(rows.len(), expected.len(), "{name}: {rows:?}\nDuckDB: {expected:?}");
        for (row, expected) in rows.iter().zip(&expected) {
            assert!(same(row, expected), "{name}: {row}\nDuckDB: {expected}");
        }
        sizes.push((name, rows.len()));
    }
    sizes
}

#[test]
fn duckdb_gives_the_same_rows() {
    let Some(duckdb) = duckdb() else { return };
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    for (name, rows) in compare(&duckdb, &set) {
        assert!(rows > 0, "{name} has no rows, so nothing was compared");
    }
    // The footers, which any Parquet reader can read.
    let query = "SELECT footer->>'version' AS version, footer->>'shard' AS shard, \
                 (footer->>'samples')::INT AS samples, (footer->>'mentions')::INT = \
                 (SELECT count(*) FROM mentions WHERE mentions.shard = footers.shard) AS counted \
                 FROM footers ORDER BY shard";
    let footers = ask_duckdb(&duckdb, &set, &[query]).remove(0);
    let footer = |shard: &str, samples: u32| json!({"version": "2", "shard": shard, "samples": samples, "counted": true});
    // Of the eight samples, the fifth and the sixth failed.
    assert_eq!(footers, [footer("00000.tar", 3), footer("00001.tar", 1), footer("00002.tar", 2)]);
    let totals = "SELECT json_extract_string(decode(value), 'version') AS version, \
                  json_extract_string(decode(value), 'samples')::INT AS samples \
                  FROM parquet_kv_metadata('statistics/*.parquet') WHERE decode(key) = 'statistics'";
    let totals = ask_duckdb(&duckdb, &set, &[totals]).remove(0);
    assert_eq!(totals, vec![json!({"version": "2", "samples": 6}); 2]);
    // Text columns with few values are stored as dictionaries; the statistics are sorted.
    let practice = [
        "SELECT count(*) AS n FROM parquet_metadata('*.concepts.parquet') \
         WHERE path_in_schema IN ('phrase', 'concept', 'head', 'tags') AND encodings NOT LIKE '%RLE_DICTIONARY%'",
        "SELECT count(*) AS n FROM (SELECT mentions, lag(mentions) OVER (ORDER BY file_row_number) AS before \
         FROM read_parquet('statistics/concepts.parquet', file_row_number = true)) WHERE mentions > before",
        "SELECT count(*) AS n FROM (SELECT samples, lag(samples) OVER (ORDER BY file_row_number) AS before \
         FROM read_parquet('statistics/pairs.parquet', file_row_number = true)) WHERE samples > before",
    ];
    for (answer, query) in ask_duckdb(&duckdb, &set, &practice).into_iter().zip(practice) {
        assert_eq!(answer, [json!({"n": 0})], "{query}");
    }
}

#[test]
fn duckdb_gives_the_same_rows_on_real_captions() {
    let (Some(data), Some(duckdb)) = (real_data(), duckdb()) else { return };
    let place = tempfile::tempdir().unwrap();
    let set = place.path().join("set");
    tag(&data.join("coco/captions.jsonl"), &data.join("coco/images"), &set, "800");
    let sizes = compare(&duckdb, &set);
    let mentions = sizes.iter().find(|(name, _)| *name == "mentions").unwrap().1;
    assert!(mentions > 3 * 1951, "{mentions} mentions in 1951 captions");
}

#[test]
fn answers_agree_with_counts_by_hand() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    // Counted in the captions above.
    let heads = "SELECT head, count(*) AS n FROM mentions WHERE head IN ('dog', 'cat', 'man') GROUP BY head ORDER BY head";
    assert_eq!(
        ask_tools(&set, heads),
        [json!({"head": "cat", "n": 3}), json!({"head": "dog", "n": 5}), json!({"head": "man", "n": 2})]
    );
    let failures =
        ask_tools(&set, "SELECT key, status, shard FROM samples WHERE status <> 'success' ORDER BY key");
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|row| row["shard"] == "00001"), "{failures:?}");
    assert_eq!(
        ask_tools(
            &set,
            "SELECT sum(count) AS count, sum(successes) AS successes, sum(captions_without_mention) AS without FROM shards"
        ),
        [json!({"count": 8, "successes": 6, "without": 1})]
    );
    // Nulls come last in both sort orders, as in DuckDB.
    let nulls = ask_tools(&set, "SELECT error_message FROM samples ORDER BY error_message DESC");
    assert!(nulls[0]["error_message"].is_string() && nulls[7]["error_message"].is_null(), "{nulls:?}");

    // Statistics in another folder are given after the shards.
    let statistics = place.path().join("elsewhere");
    fs::rename(set.join("statistics"), &statistics).unwrap();
    let top = "SELECT concept, mentions FROM concepts ORDER BY mentions DESC LIMIT 1";
    let output = run("tools", &["sql", top, text(&set), text(&statistics), "--format", "csv", "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[..2], ["concept,mentions", "dog,5"]);
    let told: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!((&told["rows"], &told["complete"]), (&json!(1), &json!(true)));
    assert!(refused("tools", &["sql", top, text(&set)], 1).contains("tools stats"));

    let table =
        run("tools", &["sql", "SELECT key, error_message FROM samples ORDER BY key LIMIT 1", text(&set)]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("| NULL          |") && table.ends_with("(1 row)\n"), "{table}");
    for query in [
        "SHOW TABLES",
        "DESCRIBE mentions",
        "EXPLAIN SELECT * FROM shards",
        "WITH x AS (SELECT 1 AS y) SELECT y FROM x",
    ] {
        assert!(!ask_tools(&set, query).is_empty(), "{query}");
    }
    assert_eq!(ask_tools(&set, "SELECT value FROM generate_series(1, 3)").len(), 3);

    let help = String::from_utf8(run("tools", &["sql", "--help"]).stdout).unwrap();
    let examples: Vec<&str> = help.split("tools sql ").filter(|part| part.contains("SELECT ")).collect();
    assert_eq!(examples.len(), 3);
    fs::rename(&statistics, set.join("statistics")).unwrap();
    for example in examples {
        let (start, end) = (example.find('"').unwrap(), example.rfind('"').unwrap());
        assert!(!ask_tools(&set, &example[start + 1..end]).is_empty(), "{example}");
    }
    let empty = run("tools", &["sql", "SELECT key FROM samples WHERE false", text(&set), "--format", "csv"]);
    assert_eq!(String::from_utf8(empty.stdout).unwrap(), "key\n");
}

#[test]
fn queries_that_cannot_be_answered_are_errors() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let outside = place.path().join("outside");
    let path = outside.display();
    let refuse = |query: &str, code: i32| refused("tools", &["sql", query, text(&set)], code);
    for query in [
        format!("COPY samples TO '{path}' STORED AS CSV"),
        format!("COPY (SELECT 1) TO '{path}'"),
        format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{path}'"),
        format!("EXPLAIN ANALYZE COPY samples TO '{path}' STORED AS CSV"),
        "CREATE TABLE x AS SELECT * FROM samples".to_owned(),
        "SELECT * INTO x FROM samples".to_owned(),
        "CREATE VIEW x AS SELECT 1".to_owned(),
        "INSERT INTO samples SELECT * FROM samples".to_owned(),
        "DELETE FROM samples".to_owned(),
        "UPDATE samples SET key = '1'".to_owned(),
        "DROP TABLE samples".to_owned(),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
    ] {
        refuse(&query, 2);
        assert!(!outside.exists(), "{query}");
    }
    assert!(refuse("DROP TABLE samples", 2).contains("only statements that read"));
    assert!(refuse("SELECT 1; SELECT 2", 2).contains("one statement"));
    assert!(refuse("", 2).contains("one statement"));
    assert!(refuse("SELEC 1", 2).contains("SELEC"));
    let line = refuse("SELECT concpet FROM mentions", 2);
    assert!(line.contains("concpet") && line.contains("mentions.concept"), "{line}");
    let line = refuse("SELECT * FROM mention", 2);
    assert!(line.contains("no table mention;") && line.contains("mentions, shards"), "{line}");
    assert!(refuse("SELECT nothing(key) FROM samples", 2).contains("nothing"));
    // Only the files of the tables can be read.
    let secret = set.join("00000.parquet");
    refuse(&format!("SELECT * FROM '{}'", secret.display()), 2);
    refuse("SELECT 1 / 0 FROM samples", 1);

    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let line = refused("tools", &["sql", "SELECT 1", text(&empty)], 1);
    assert!(line.contains("no shards"), "{line}");
    refused("tools", &["sql", "SELECT 1", text(&place.path().join("nowhere"))], 1);

    let hungry = "SELECT array_agg(s.key ORDER BY a.phrase) FROM samples s, mentions a, mentions b, mentions c, mentions d, \
                  mentions e GROUP BY s.key";
    let line = refused("tools", &["sql", hungry, text(&set), "--memory", "16"], 1);
    assert!(line.contains("16 MB") && line.contains("--memory"), "{line}");
}

#[test]
fn signals_are_tables_with_the_names_of_their_producers() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let mut expected = Vec::new();
    for shard in ["00000", "00001", "00002"] {
        let signals = Signals::open(set.join(format!("{shard}.tar")), "hash", None, None).unwrap();
        let hashes = signals.columns().column_by_name("phash").unwrap();
        for (sample, hash) in (0..).zip(hashes.as_primitive::<UInt64Type>()) {
            expected
                .push(json!({"shard": shard, "sample": sample, "key": signals.key(sample), "phash": hash}));
        }
    }
    assert_eq!(expected.len(), 6);
    let query = "SELECT shard, sample, key, phash FROM hash ORDER BY shard, sample";
    assert_eq!(ask_tools(&set, query), expected);
    let joined = "SELECT count(*) AS n FROM hash JOIN samples USING (shard, key) WHERE status = 'success'";
    assert_eq!(ask_tools(&set, joined), [json!({"n": 6})]);
    let listed = ask_tools(&set, "SHOW TABLES");
    let names: Vec<&Value> = listed.iter().map(|row| &row["table_name"]).collect();
    assert!(names.contains(&&json!("hash")) && names.contains(&&json!("samples")), "{names:?}");
    assert!(
        refused("tools", &["sql", "SELECT 1 FROM score", text(&set)], 2).contains("there is no table score")
    );
    // Signals of another state of the shard.
    fs::copy(set.join("00001.hash.parquet"), set.join("00002.hash.parquet")).unwrap();
    let line = refused("tools", &["sql", query, text(&set)], 1);
    assert!(line.contains("00002.hash.parquet") && line.contains("00001.hash.parquet"), "{line}");
}

/// What `tools select --where` asks.
#[test]
fn a_selection_is_made_by_a_query() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let selection = place.path().join("selection.parquet");
    let query = "SELECT shard, sample FROM mentions JOIN hash USING (shard, sample) WHERE head = 'dog' AND phash IS NOT NULL";
    let arguments = ["select", text(&set), "--out", text(&selection), "--where", query];
    let rules = &summary("tools", &arguments)["rules"];
    // Of the six samples in the tars, four mention a dog, one of them two.
    assert_eq!(rules[1]["kept"], 4, "{rules}");
}

#[test]
#[cfg(unix)]
fn an_interrupt_stops_a_long_query() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let query = "SELECT count(*) FROM generate_series(1, 1000000000000) AS number CROSS JOIN mentions WHERE phrase > 'a'";
    let mut running = Command::new(program("tools"))
        .args(["sql", query, text(&set)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("querying: "), "a long query prints progress");
    let killed = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let last = lines.map(Result::unwrap).last().unwrap();
    assert_eq!(
        (running.wait().unwrap().code(), last.as_str()),
        (Some(130), "error: interrupted: the query is not finished")
    );
}

#[test]
fn errors_name_files_that_do_not_match() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let refuse = |query: &str| refused("tools", &["sql", query, text(&set)], 1);
    // The sidecar of another shard.
    fs::copy(set.join("00000.concepts.parquet"), set.join("00001.concepts.parquet")).unwrap();
    let line = refuse("SELECT count(*) FROM mentions");
    assert!(line.contains("00001.concepts.parquet") && line.contains("00000.tar"), "{line}");
    fs::write(set.join("00002.parquet"), "not a table").unwrap();
    assert!(refuse("SELECT key FROM samples").contains("00002.parquet"));
    assert_eq!(
        ask_tools(&set, "SELECT count(*) AS n FROM shards"),
        [json!({"n": 3})],
        "other tables can still be queried"
    );
    // A shard without a table is skipped with a note.
    fs::remove_file(set.join("00002.parquet")).unwrap();
    let output = run("tools", &["sql", "SELECT count(*) AS n FROM samples", text(&set), "--format", "csv"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "n\n6\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("lacks 1 of 3 shards"));
}

/// Tables whose columns differ are one table, as by DuckDB's `union_by_name`: 1 + 2 + 0.5, and nothing where there is no score.
#[test]
fn columns_that_differ_between_tables_are_united() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let scores: [Option<ArrayRef>; 3] = [
        Some(Arc::new(Int64Array::from(vec![1, 2]))),
        Some(Arc::new(Float32Array::from(vec![Some(0.5), None]))),
        None,
    ];
    for (shard, scores) in scores.into_iter().enumerate() {
        let columns = [("key", Some(keys.clone())), ("score", scores)];
        let columns = columns.into_iter().filter_map(|(name, values)| Some((name, values?)));
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(set.join(format!("0000{shard}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    let query = "SELECT count(*) AS n, count(score) AS scores, sum(score) AS total FROM samples";
    assert_eq!(ask_tools(&set, query), [json!({"n": 6, "scores": 3, "total": 3.5})]);
}

/// Where the address space is limited, threads with the usual stacks cannot all be started. The query has an answer or an
/// error, but it ends.
#[test]
fn a_query_ends_where_memory_is_limited() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let query = "SELECT concept, count(*) AS mentions FROM mentions JOIN samples USING (shard, key) \
                 GROUP BY concept ORDER BY mentions DESC, concept";
    let expected = ask_tools(&set, query);
    for kilobytes in [1_500_000, 1_000_000, 800_000, 600_000, 400_000] {
        let script = format!("ulimit -v {kilobytes} && exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script, text(&program("tools-sql")), query, text(&set), "--format", "json"])
            .output()
            .unwrap();
        let (rows, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(rows, expected, "{kilobytes}");
        } else {
            assert!(errors.contains("allow more memory"), "{kilobytes}: {errors}");
        }
    }
}

/// All tables at addresses in a store: the rows of the disk, from a part of the bytes.
#[test]
fn a_dataset_in_a_store_gives_the_rows_of_the_disk() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let store = Store::start();
    store.put(&set, "set");
    let ask = |query: &str, set: &str| {
        let mut command = Command::new(program("tools"));
        store.environment(&mut command).args(["sql", query, set, "--format", "json"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, query) in queries() {
        assert_eq!(ask(query, "s3://bucket/set"), ask(query, text(&set)), "{name}");
    }
    let brace = ask("SELECT count(*) AS n FROM samples", "s3://bucket/set/{00000..00001}.tar");
    assert_eq!(brace, "{\"n\":6}\n");

    // A table with one large column that the query does not need.
    let large = "SELECT key FROM samples ORDER BY key";
    let expected = ask(large, text(&set));
    widen(&set.join("00000.parquet"));
    store.put(&set, "set");
    let bytes = fs::metadata(set.join("00000.parquet")).unwrap().len();
    store.bucket().requests.clear();
    assert_eq!(ask(large, "s3://bucket/set"), expected);
    let requests = store.bucket().requests.clone();
    let read: usize =
        requests.iter().filter(|(_, key, _)| key == "set/00000.parquet").map(|(.., read)| read).sum();
    assert!(read > 0 && (read as u64) < bytes / 4, "{read} of {bytes} bytes: {requests:?}");
}

#[cfg(not(feature = "distributed"))]
#[test]
fn a_program_without_workers_says_how_to_build_one_that_has_them() {
    for arguments in [&["sql", "SELECT 1", "shards", "--workers", "a:7900,b:7900"][..], &["sql", "--worker"]]
    {
        let error = refused("tools", arguments, 2);
        assert!(
            error.contains("cargo build --release -p simzss-tools-sql --features distributed"),
            "{error}"
        );
    }
}
