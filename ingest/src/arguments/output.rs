//! Where the shards go, which of them this process makes, and how many losses are too many.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread::available_parallelism;

use clap::Args;
use ingest::Error;
use ingest::image;
use ingest::part::Part;
use ingest::set::Set;
use ingest::stats::Totals;

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
    /// Folder for the shards, or an s3:// or gs:// address (credentials from the environment: AWS_ACCESS_KEY_ID,
    /// AWS_ENDPOINT_URL, GOOGLE_SERVICE_ACCOUNT ..; shards are then made in TMPDIR first). A finished or interrupted run
    /// of the same set is continued there.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Samples a shard.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) shard_size: u32,
    /// Writes .tar.zst instead of .tar.
    #[arg(long)]
    pub(crate) compress: bool,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

/// What `download`, `shard` and `retry` have in common: how they run and what they tell.
#[derive(Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Threads that decode and encode [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Ends with exit code 3 when more samples than this are missing: a number, a fraction (0.05) or percent (5%).
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failures: Option<MaxFailures>,
    /// Serves the run's figures to Prometheus at this address, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
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
            part: self.run.part.part()?,
            image,
            threads: threads(self.run.threads),
            metrics: self.run.metrics,
        })
    }
}

/// As many as asked for, else as many as there are cores.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| available_parallelism().map_or(1, Into::into)).max(1)
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
    use super::*;

    #[test]
    fn failures_are_counts_or_shares() {
        assert_eq!("100".parse(), Ok(MaxFailures::Count(100)));
        assert_eq!("0.05".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert_eq!("5%".parse(), Ok(MaxFailures::Fraction(0.05)));
        assert!("-1".parse::<MaxFailures>().is_err());
        assert!("200%".parse::<MaxFailures>().is_err());
    }
}
