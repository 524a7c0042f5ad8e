-- Queries on a tagged dataset, for `tools sql` and for DuckDB (with the views of duckdb.sql). Each starts with a line
-- `-- name: description`. Each ORDER BY is unique, so both engines give the same rows in the same order.

-- top: the most frequent concepts
SELECT concept, mentions, samples, round(100 * share, 2) AS percent
FROM concepts
ORDER BY mentions DESC, concept
LIMIT 10;

-- with_dog: the concepts most often mentioned together with a dog, and their PMI (above 0: more often than by chance)
SELECT CASE WHEN a = 'dog' THEN b ELSE a END AS concept, samples, round(pmi, 2) AS pmi
FROM pairs
WHERE (a = 'dog' OR b = 'dog') AND samples >= 2
ORDER BY samples DESC, concept
LIMIT 10;

-- without_mention: percentage of captions without a concept, by shard
SELECT shard, successes, captions_without_mention,
    round(100.0 * captions_without_mention / successes, 2) AS percent
FROM shards
ORDER BY shard;

-- adjectives: the adjectives of cats and dogs
SELECT head, word, count(*) AS times
FROM (
    SELECT head, unnest(string_to_array(phrase, ' ')) AS word, unnest(string_to_array(tags, ' ')) AS tag
    FROM mentions
    WHERE head IN ('cat', 'dog')
) AS words
WHERE tag = 'JJ'
GROUP BY head, word
ORDER BY head, times DESC, word
LIMIT 20;

-- longest: the phrases with the most words
SELECT phrase, concept, length(tags) - length(replace(tags, ' ', '')) + 1 AS words
FROM mentions
GROUP BY phrase, concept, tags
ORDER BY words DESC, phrase
LIMIT 10;

-- failures: failed samples by cause
SELECT status, error_message, count(*) AS samples
FROM samples
WHERE status <> 'success'
GROUP BY status, error_message
ORDER BY samples DESC, status, error_message;

-- both: captions that mention a man and a dog
SELECT s.shard, s.key, s.caption
FROM samples AS s
JOIN mentions AS a ON a.shard = s.shard AND a.key = s.key AND a.head = 'man'
JOIN mentions AS b ON b.shard = s.shard AND b.key = s.key AND b.head = 'dog'
GROUP BY s.shard, s.key, s.caption
ORDER BY s.shard, s.key
LIMIT 10;

-- new_words: concepts that only shard 00001 mentions
SELECT concept, count(*) AS mentions
FROM mentions
GROUP BY concept
HAVING min(shard) = max(shard) AND min(shard) = '00001'
ORDER BY mentions DESC, concept
LIMIT 10;
