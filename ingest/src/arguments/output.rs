//! Options of the output: the folder, the shards that this process makes, and the number of failures that is accepted.

use std::net::SocketAddr;
use std::str::FromStr;
use std::thread::available_parallelism;

use clap::{Args, ValueHint};
use ingest::Error;
use ingest::dataset::{Dataset, Part};
use ingest::image;
use ingest::pipeline::{Resources, Totals};
use program::location;
use storage::Location;

#[derive(Args)]
pub(crate) struct PartArguments {
    /// Index of this job (from 0) of --count parallel jobs; it makes only the shards whose number modulo --count is the index
    /// [default: SLURM_ARRAY_TASK_ID, SLURM_PROCID or JOB_COMPLETION_INDEX if set, else one job makes all shards]
    #[arg(long, requires = "count")]
    pub(crate) index: Option<u32>,
    /// Number of parallel jobs [default: SLURM_ARRAY_TASK_COUNT, SLURM_NTASKS or JOB_COMPLETIONS]
    #[arg(long, requires = "index")]
    pub(crate) count: Option<u32>,
}

impl PartArguments {
    /// The part of this job. Prints it when it comes from the scheduler's environment rather than from the command line.
    pub(crate) fn part(&self) -> Result<Part, Error> {
        let part = Part::new(self.index, self.count)?;
        if let (Some((index, count)), None) = (part.several(), self.index) {
            eprintln!("job {index} of {count} (counted from 0), from the scheduler's environment variables");
        }
        Ok(part)
    }
}

/// The options of commands that work through shards, each on one thread.
#[derive(Args)]
pub(crate) struct ShardWork {
    /// Threads [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Print the counts as one JSON object, as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Output {
    /// Folder for the shards, or an s3://, gs:// or az:// address (credentials from environment variables such as
    /// AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and GOOGLE_SERVICE_ACCOUNT; each shard is first written to TMPDIR). If the folder
    /// holds shards of an earlier run with the same input and options, that run is resumed. Several processes may make one
    /// dataset at the same time: each takes shards that no other makes.
    #[arg(long, value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) out: Location,
    /// Maximum number of samples per shard, failed ones included.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) shard_size: u32,
    /// Write .tar.zst (Zstandard) instead of .tar.
    #[arg(long)]
    pub(crate) compress: bool,
    #[command(flatten, next_help_heading = "Run")]
    pub(crate) run: RunArguments,
}

/// The options that `download`, `shard` and `retry` share.
#[derive(Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Threads that decode, resize and encode images [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Exit with code 3 if more samples than this failed: a count (100), a fraction (0.05) or a percentage (5%)
    /// [default: no limit, but exit with code 1 if every sample failed]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failures: Option<MaxFailures>,
    /// Serve Prometheus metrics of this run at this address, for example 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Print the counts as one JSON object, as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Output {
    /// `requests`: whether the images are downloaded.
    pub(crate) fn dataset(&self, image: image::Settings, requests: bool) -> Result<Dataset, Error> {
        Ok(Dataset {
            folder: self.out.clone(),
            shard_size: self.shard_size,
            compress: self.compress,
            part: self.run.part.part()?,
            requests,
            image,
        })
    }
}

impl RunArguments {
    pub(crate) fn resources(&self) -> Resources {
        Resources { threads: threads(self.threads), metrics: self.metrics }
    }
}

/// The given number of threads, or one per core.
pub(crate) fn threads(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| available_parallelism().map_or(1, Into::into)).max(1)
}

/// How many samples may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxFailures {
    Count(u64),
    Fraction(f64),
}

impl MaxFailures {
    pub(crate) fn exceeded(self, totals: &Totals) -> bool {
        match self {
            Self::Count(limit) => totals.failures() > limit,
            Self::Fraction(limit) => totals.failures() as f64 > limit * totals.stats.count as f64,
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
            .ok_or_else(|| "give a count (100), a fraction (0.05) or a percentage (5%)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_count_a_fraction_or_a_percentage() {
        assert_eq!("100".parse(), Ok(MaxFailures::Count(100)));
        assert_eq!("0.05".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert_eq!("5%".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert!("-1".parse::<MaxFailures>().is_err());
        assert!("200%".parse::<MaxFailures>().is_err());
    }
}
