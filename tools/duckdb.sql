-- The tables of `tools sql` as DuckDB views (DuckDB 1.1 or newer). Run it in a folder of shards that has a folder
-- `statistics` from `tools stats`:
--     tools stats shards --out shards/statistics
--     cd shards && duckdb -init path/to/duckdb.sql
-- Files have temporary names while they are written, so the patterns below match only complete files.

CREATE VIEW samples AS
SELECT split_part(parse_filename(filename), '.', 1) AS shard, * EXCLUDE (filename)
-- Shards of which samples were removed have columns that others lack.
FROM read_parquet('[0-9][0-9][0-9][0-9][0-9].parquet', filename = true, union_by_name = true);

CREATE VIEW mentions AS
SELECT split_part(parse_filename(filename), '.', 1) AS shard, * EXCLUDE (filename)
FROM read_parquet('*.concepts.parquet', filename = true, union_by_name = true);

CREATE VIEW concepts AS SELECT * FROM 'statistics/concepts.parquet';

CREATE VIEW pairs AS SELECT * FROM 'statistics/pairs.parquet';

-- The footers of the sidecars: the tagger and the shard of each, and its counts.
CREATE VIEW footers AS
SELECT split_part(parse_filename(file_name), '.', 1) AS shard, decode(value)::JSON AS footer
FROM parquet_kv_metadata('*.concepts.parquet')
WHERE decode(key) = 'concepts';

CREATE VIEW shards AS
SELECT split_part(parse_filename(tars.filename), '.', 1) AS shard, stats.count, stats.successes,
    (footer->>'mentions')::BIGINT AS mentions,
    (footer->>'captions_without_mention')::BIGINT AS captions_without_mention,
    tars.size AS bytes
FROM read_blob('*.tar*') AS tars
LEFT JOIN read_json('*_stats.json', columns = {count: 'BIGINT', successes: 'BIGINT'}, filename = true) AS stats
    ON split_part(parse_filename(tars.filename), '.', 1) = split_part(parse_filename(stats.filename), '_', 1)
LEFT JOIN footers ON footers.shard = split_part(parse_filename(tars.filename), '.', 1);
