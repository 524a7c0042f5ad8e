//! What a request for an image taught besides the image: columns of the shard's table, also of samples that failed.

/// What the last response to the requests for an image said; nothing if there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The URL that answered, after redirects, without user name and password.
    pub final_url: Option<String>,
    /// When it answered, in milliseconds since 1970-01-01 UTC.
    pub fetched: Option<i64>,
    /// Its `ETag` header.
    pub etag: Option<String>,
    /// Its `Last-Modified` header.
    pub last_modified: Option<String>,
    /// The signals by which its owner opts out, obeyed or not, separated by ", ".
    pub opt_outs: Option<String>,
}

impl Request {
    /// Notes a signal by which the owner opts out.
    pub(crate) fn add_opt_out(&mut self, name: &str) {
        let seen = self.opt_outs.get_or_insert_default();
        if !seen.split(", ").any(|seen| seen == name) {
            *seen = if seen.is_empty() { name.to_owned() } else { format!("{seen}, {name}") };
        }
    }

    /// The texts of its columns, all but `fetched`.
    pub(crate) fn texts(&self) -> [Option<&str>; 4] {
        [&self.final_url, &self.etag, &self.last_modified, &self.opt_outs].map(Option::as_deref)
    }
}
