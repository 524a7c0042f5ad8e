//! Prints canonical text and the token ids of CLIP's tokenizer, for `tests/fixtures/text/compare.py`.
//!
//!     cargo run --release -p simzss-concepts --example clip_text < captions.jsonl
//!
//! One caption per line as a JSON string; one line `[text, ids]` for each.

use std::io::{self, BufRead, BufWriter, Write};

use concepts::{Tokenizer, canonical};

fn main() -> io::Result<()> {
    let tokenizer = Tokenizer::clip();
    let mut to = BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let caption: String = serde_json::from_str(&line?)?;
        let text = canonical(&caption);
        let ids = tokenizer.encode(&text, 77).ids;
        serde_json::to_writer(&mut to, &(text, ids))?;
        writeln!(to)?;
    }
    to.flush()
}
