//! The command line, and what it means.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use concepts::TaggerKind;
use ingest::Error;
use ingest::download::{self, Allowed, DIRECTIVES};
use ingest::image::{self, Encoding, Mode};
use ingest::part::Part;
use ingest::rows::{self, Format, RESERVED, Wanted, Where};
use ingest::set::Set;
use ingest::stats::Totals;
use ingest::tag::Tables;

/// Lists of URLs and local sets to WebDataset shards, and the concepts of their captions.
#[derive(Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Downloads the pictures of a list of URLs into shards.
    Download(Box<Download>),
    /// Packs local pictures into shards.
    Shard(Box<Shard>),
    /// Finds the concepts of captions: a sidecar beside each shard, or numbered ones for a table without pictures.
    Tag(Tag),
    /// Tries the failed samples of finished shards again.
    Retry(Box<Retry>),
    /// Checks shards, tables, statistics and sidecars; names what is broken.
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Download {
    /// Table of URLs and captions: parquet, csv, tsv, json, jsonl or txt (also .gz, .zst), or a folder of such files.
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Column of URLs [default: url, whatever its case]
    #[arg(long)]
    pub(crate) url_col: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Args)]
pub(crate) struct Shard {
    /// COCO captions json, or a csv, tsv, json, jsonl or parquet table of files and captions, or a folder of pictures
    /// with a .txt beside each. A picture with several captions becomes one sample a caption.
    pub(crate) input: PathBuf,
    /// Folder that the files of a table are in.
    #[arg(long)]
    pub(crate) images: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Column of files [default: file, file_name, filename, image, image_path, filepath or path]
    #[arg(long)]
    pub(crate) file_col: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
    /// Largest file, in bytes.
    #[arg(long, default_value_t = 50_000_000)]
    pub(crate) max_bytes: u64,
}

#[derive(Args)]
pub(crate) struct Tag {
    /// Folder of shards (or a tar, or names with brace lists such as {00000..00009}.tar).
    #[arg(required_unless_present_any = ["text", "table"], conflicts_with_all = ["text", "table"])]
    pub(crate) shards: Option<PathBuf>,
    /// File of captions, one a line ("-": standard input); prints one JSON object a line instead of writing sidecars:
    /// {"text", "mentions": [{phrase, concept, head, start, end, ..}]}, offsets in characters of the canonical text.
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    pub(crate) text: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) captions: Captions,
    /// brill, perceptron or nlprule.
    #[arg(long, default_value_t)]
    pub(crate) tagger: TaggerKind,
    /// Threads [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Prints one JSON object with the counts as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Captions without pictures.
#[derive(Args)]
pub(crate) struct Captions {
    /// Table of captions, no pictures needed: parquet, csv, tsv, json (COCO's, too), jsonl, or txt with one caption a
    /// line (also .gz, .zst), or a folder of such files. Writes numbered sidecars, and captions.json, to --out.
    #[arg(long, value_name = "INPUT", requires = "out")]
    pub(crate) table: Option<PathBuf>,
    /// Folder for the sidecars of --table; a finished or interrupted run of the same table is continued there.
    #[arg(long, requires = "table")]
    pub(crate) out: Option<PathBuf>,
    /// How the table is written [default: by its name]
    #[arg(long, requires = "table")]
    pub(crate) input_format: Option<Format>,
    /// Column of captions, text or lists of texts [default: caption, captions or text, whatever its case]
    #[arg(long, requires = "table")]
    pub(crate) caption_col: Option<String>,
    /// Column of keys [default: the key is the caption's number in the whole input, from 0, in nine digits]
    #[arg(long, requires = "table")]
    pub(crate) key_col: Option<String>,
    /// Rows of the table a sidecar.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) part_size: u32,
}

impl Captions {
    /// The tables of `input` and where their sidecars go.
    pub(crate) fn tables(&self, input: &Path, out: &Path) -> Result<Tables, Error> {
        let wanted = Wanted {
            place: Where::Nowhere,
            url: None,
            caption: self.caption_col.clone(),
            no_captions: false,
            extra: self.key_col.iter().cloned().collect(),
        };
        let files = rows::files(input, self.input_format)?;
        Ok(Tables { files, wanted, out: out.to_owned(), part_size: self.part_size })
    }
}

#[derive(Args)]
pub(crate) struct Retry {
    /// Folder that `ingest download` made.
    pub(crate) folder: PathBuf,
    /// Only failures whose cause contains one of these texts, such as "timed out", "HTTP Error 503" [default: all but
    /// those that cannot end otherwise]
    #[arg(long, value_delimiter = ',')]
    pub(crate) causes: Vec<String>,
    /// Threads that decode and encode [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    #[command(flatten)]
    pub(crate) network: Network,
    /// Ends with exit code 3 when more samples than this are missing: a number, a fraction (0.05) or percent (5%).
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failures: Option<MaxFailures>,
    /// Prints one JSON object with the counts as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Folder of shards.
    pub(crate) folder: PathBuf,
    /// Prints one JSON object with the findings as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Columns {
    /// How the input is written [default: by its name]
    #[arg(long)]
    pub(crate) input_format: Option<Format>,
    /// Column of captions, text or lists of texts [default: caption, captions or text, whatever its case]
    #[arg(long, conflicts_with = "no_captions")]
    pub(crate) caption_col: Option<String>,
    /// Makes a set without captions.
    #[arg(long)]
    pub(crate) no_captions: bool,
    /// Columns carried through to the shards' tables and JSON members.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) save_additional_columns: Vec<String>,
}

impl Columns {
    pub(crate) fn wanted(&self, place: Where, url: Option<&String>) -> Result<Wanted, Error> {
        if let Some(taken) =
            self.save_additional_columns.iter().find(|name| RESERVED.contains(&name.as_str()))
        {
            let problem =
                format!("--save-additional-columns {taken}: shards have a column of that name already");
            return Err(Error::Usage(problem));
        }
        Ok(Wanted {
            place,
            url: url.cloned(),
            caption: self.caption_col.clone(),
            no_captions: self.no_captions,
            extra: self.save_additional_columns.clone(),
        })
    }
}

#[derive(Args)]
pub(crate) struct PartArguments {
    /// Which part of the shards this process makes, of --count [default: SLURM_ARRAY_TASK_ID, SLURM_PROCID or
    /// JOB_COMPLETION_INDEX, else everything]
    #[arg(long, requires = "count")]
    pub(crate) index: Option<u32>,
    /// Number of parts [default: SLURM_ARRAY_TASK_COUNT, SLURM_NTASKS or JOB_COMPLETIONS]
    #[arg(long, requires = "index")]
    pub(crate) count: Option<u32>,
}

impl PartArguments {
    /// The part, told to the user when a scheduler decided it.
    pub(crate) fn part(&self) -> Result<Part, Error> {
        let part = Part::new(self.index, self.count)?;
        if let (Some((index, count)), None) = (part.several(), self.index) {
            eprintln!("part {index} of {count}, as the scheduler's variables say");
        }
        Ok(part)
    }
}

#[derive(Args)]
pub(crate) struct Output {
    /// Folder for the shards; a finished or interrupted run of the same set is continued there.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Samples a shard.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) shard_size: u32,
    /// Writes .tar.zst instead of .tar.
    #[arg(long)]
    pub(crate) compress: bool,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Threads that decode and encode [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Ends with exit code 3 when more samples than this are missing: a number, a fraction (0.05) or percent (5%).
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failures: Option<MaxFailures>,
    /// Prints one JSON object with the counts as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn set(&self, image: image::Settings) -> Result<Set, Error> {
        Ok(Set {
            folder: self.out.clone(),
            shard_size: self.shard_size,
            compress: self.compress,
            part: self.part.part()?,
            image,
            threads: threads(self.threads),
        })
    }
}

/// As many as asked for, else as many as there are cores.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| available_parallelism().map_or(1, Into::into)).max(1)
}

#[derive(Clone, Copy, ValueEnum)]
enum FileType {
    Jpg,
    Png,
    Webp,
}

#[derive(Args)]
pub(crate) struct Pictures {
    /// What happens to the picture's size.
    #[arg(long, value_enum, default_value_t = Mode::Border)]
    resize_mode: Mode,
    /// Pixels of the side that the mode speaks of.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    image_size: u32,
    /// Leaves smaller pictures as they are.
    #[arg(long)]
    resize_only_if_bigger: bool,
    /// File type in the shards (webp: without loss).
    #[arg(long, value_enum, default_value_t = FileType::Jpg)]
    encode_format: FileType,
    /// jpg: quality 1-100 [default: 95]; png: compression 0-9 [default: 6]
    #[arg(long)]
    encode_quality: Option<u8>,
    /// Keeps the original file when it has that type already and nothing had to change.
    #[arg(long)]
    skip_reencode: bool,
    /// Leaves pictures as the camera's sensor saw them, as img2dataset does.
    #[arg(long)]
    ignore_orientation: bool,
    /// Turns away pictures with a shorter side of fewer pixels.
    #[arg(long, default_value_t = 0, value_name = "PIXELS")]
    min_image_size: u32,
    /// Turns away pictures of more pixels.
    #[arg(long, value_name = "PIXELS")]
    max_image_area: Option<u64>,
    /// Turns away pictures that are longer than this many times their other side.
    #[arg(long, value_name = "RATIO")]
    max_aspect_ratio: Option<f64>,
    /// Never decodes pictures that claim more pixels, nor makes them: 3 bytes a pixel and thread is the memory it takes.
    #[arg(long, default_value_t = 100_000_000, value_name = "PIXELS")]
    max_pixels: u64,
}

impl Pictures {
    pub(crate) fn settings(&self) -> Result<image::Settings, Error> {
        let bad = |problem: &str| Err(Error::Usage(format!("--encode-quality: {problem}")));
        let encoding = match (self.encode_format, self.encode_quality) {
            (FileType::Jpg, quality) => match quality.unwrap_or(95) {
                quality @ 1..=100 => Encoding::Jpg(quality),
                _ => return bad("jpg takes 1 to 100"),
            },
            (FileType::Png, level) => match level.unwrap_or(6) {
                level @ 0..=9 => Encoding::Png(level),
                _ => return bad("png takes 0 to 9, the effort of compressing"),
            },
            (FileType::Webp, None) => Encoding::Webp,
            (FileType::Webp, Some(_)) => return bad("webp is written without loss"),
        };
        Ok(image::Settings {
            mode: self.resize_mode,
            size: self.image_size,
            only_if_bigger: self.resize_only_if_bigger,
            encoding,
            skip_reencode: self.skip_reencode,
            ignore_orientation: self.ignore_orientation,
            min_side: self.min_image_size,
            max_area: self.max_image_area,
            max_aspect: self.max_aspect_ratio,
            max_pixels: self.max_pixels,
        })
    }
}

#[derive(Args)]
pub(crate) struct Network {
    /// Requests at a time.
    #[arg(long, default_value_t = 256, value_parser = at_least_one)]
    concurrency: usize,
    /// Requests at a time to one host.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    per_host: usize,
    /// Seconds for a connection, for the response to begin, and for a silence in its body.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// Seconds for a whole attempt.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    deadline: Duration,
    /// Bytes a second below which a body is given up, once --timeout has passed.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    min_speed: u64,
    /// Largest body, in bytes.
    #[arg(long, default_value_t = 50_000_000, value_name = "BYTES")]
    max_bytes: u64,
    /// Attempts after the first; only time-outs, broken connections, 408, 425, 429 and 5xx are tried again.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Seconds before the first of them; doubles each time, half of it at random.
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    backoff: Duration,
    /// Longest Retry-After, in seconds, that is waited for.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    max_retry_after: Duration,
    /// Redirects followed.
    #[arg(long, default_value_t = 10)]
    max_redirects: usize,
    /// Name under which owners of pictures can address this robot; becomes part of the user agent.
    #[arg(long, value_name = "NAME")]
    user_agent_token: Option<String>,
    /// X-Robots-Tag directives to disregard, each spelled out: noai, noimageai, noindex, noimageindex, noml. Without
    /// it all of them are honoured.
    #[arg(long, value_delimiter = ',', value_name = "DIRECTIVES")]
    ignore_opt_out: Vec<String>,
    /// Allows addresses that are not public, as of this machine or network: all of them, or those of these hosts only
    /// (--allow-private=127.0.0.1,mirror.local), as they are written in the URLs: a stranger's name that leads to an
    /// address named here stays refused.
    #[arg(long, num_args = 0.., require_equals = true, value_delimiter = ',', value_name = "HOSTS")]
    allow_private: Option<Vec<String>>,
    /// Proxy for all requests (http://host:port). It looks up the names itself. Proxies named in the environment are not
    /// used.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl Network {
    pub(crate) fn settings(&self) -> Result<download::Settings, Error> {
        if let Some(unknown) = self.ignore_opt_out.iter().find(|name| !DIRECTIVES.contains(&name.as_str())) {
            let known = DIRECTIVES.join(", ");
            return Err(Error::Usage(format!("--ignore-opt-out {unknown}: the directives are {known}")));
        }
        let plain =
            |token: &str| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if let Some(token) = self.user_agent_token.as_ref().filter(|token| token.is_empty() || !plain(token))
        {
            return Err(Error::Usage(format!(
                "--user-agent-token {token:?}: letters, digits, - _ and . only"
            )));
        }
        let honoured = DIRECTIVES.iter().map(|&name| name.to_owned());
        Ok(download::Settings {
            in_flight: self.concurrency,
            per_host: self.per_host,
            timeout: self.timeout,
            deadline: self.deadline,
            min_speed: self.min_speed,
            max_bytes: self.max_bytes,
            retries: self.retries,
            backoff: self.backoff,
            longest_retry_after: self.max_retry_after,
            redirects: self.max_redirects,
            user_agent_token: self.user_agent_token.clone(),
            opt_outs: honoured.filter(|name| !self.ignore_opt_out.contains(name)).collect(),
            allow_private: Allowed {
                everything: self.allow_private.as_ref().is_some_and(Vec::is_empty),
                hosts: self.allow_private.clone().unwrap_or_default(),
            },
            proxy: self.proxy.clone(),
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "not a number of 1 or more".to_owned())
}

/// How many samples may be missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxFailures {
    Count(u64),
    Fraction(f64),
}

impl MaxFailures {
    pub(crate) fn exceeded(self, totals: &Totals) -> bool {
        match self {
            Self::Count(most) => totals.failures() > most,
            Self::Fraction(most) => totals.failures() as f64 > most * totals.stats.count as f64,
        }
    }
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => match text.parse() {
                Ok(count) => return Ok(Self::Count(count)),
                Err(_) => text.parse::<f64>(),
            },
        };
        let valid = fraction.ok().filter(|fraction| (0.0..=1.0).contains(fraction));
        valid
            .map(Self::Fraction)
            .ok_or_else(|| "a number (100), a fraction (0.05) or percent (5%)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn failures_are_counts_or_shares() {
        assert_eq!("100".parse(), Ok(MaxFailures::Count(100)));
        assert_eq!("0.05".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert_eq!("5%".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert!("-1".parse::<MaxFailures>().is_err());
        assert!("200%".parse::<MaxFailures>().is_err());
    }
}
