//! Words that several messages share.

/// "1 shard", "2 shards".
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
