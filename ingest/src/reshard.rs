//! `ingest reshard`: selected samples of shards to new shards, with everything that belongs to them. What a new shard contains is a
//! function of the input alone (`plan.rs`), so that a run can be resumed, and shared by several processes.

mod input;
mod make;
mod plan;

use std::collections::BTreeSet;
use std::sync::Mutex;

use concepts::checksums::hexadecimal;
use loader::Identity;
use loader::shards::{self, selection};
use program::Progress;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::Location;

use self::input::{Indexed, columns, read_indexes, refuse_equal_keys};
use self::make::Maker;
pub use self::make::Totals;
use self::plan::Plan;
use crate::dataset::claim::Claims;
use crate::dataset::publish;
use crate::dataset::{Dataset, Part, RESHARD, VERSION};
use crate::error::Error;
use crate::image;
use crate::rewrite::companions::{self, Carried};

/// What the system allows at least, if it does not say how many files may be open.
const FEWEST_FILES: u64 = 256;

/// What to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// The samples to take; without it, all.
    pub selection: Option<Location>,
    /// Folder of the new shards.
    pub out: Location,
    /// Samples per new shard.
    pub size: u32,
    /// Mixes the samples with this seed.
    pub shuffle: Option<u64>,
    /// Whether tars are compressed (`.tar.zst`).
    pub compress: bool,
    /// Which of the new shards this process makes.
    pub part: Part,
    /// Number of threads.
    pub threads: usize,
}

/// Writes the samples of the complete shards in `input` (a folder, a file or a brace list).
///
/// # Errors
/// Before anything is written: the selection is not one of these shards, or has other weights than 0 and 1; two samples have the same
/// key; tables do not fit together; a sidecar or signals are of another version, or of another state of their shard. Later: a shard
/// cannot be read, or a new one cannot be written.
pub fn reshard(input: &Location, options: &Options) -> Result<Totals, Error> {
    publish::recover_all(input)?;
    let shards = shards::list(std::slice::from_ref(input))?;
    if let Some(incomplete) = shards::incomplete([input])?.first() {
        let problem = "incomplete (no _stats.json): finish it with the command that makes it first";
        return Err(Error::input(incomplete, problem));
    }
    let indexed = read_indexes(&shards, options.threads)?;
    let taken = match &options.selection {
        Some(path) => {
            let contents: Vec<Identity> = indexed.iter().map(|index| index.identity).collect();
            let counts: Vec<u32> = indexed.iter().map(|index| index.samples).collect();
            let taken = selection::taken(path, &shards, &counts, &contents)?;
            taken.into_iter().map(Some).collect()
        }
        None => vec![None; shards.len()],
    };
    let numbers: Vec<usize> = taken
        .iter()
        .zip(&indexed)
        .map(|(taken, index)| taken.as_ref().map_or(index.samples as usize, Vec::len))
        .collect();
    let plan = Plan::new(&numbers, options.size, options.shuffle);
    if plan.samples() == 0 {
        let of = options.selection.as_ref().unwrap_or(input);
        return Err(Error::input(of, "it has no samples, so there is nothing to put into shards"));
    }
    refuse_equal_keys(&shards, &indexed, &taken)?;
    let used: BTreeSet<usize> = plan.shards.iter().copied().collect();
    let of_used = |shard: &usize| (shards[*shard].clone(), indexed[*shard].samples);
    let (paths, counts): (Vec<Location>, Vec<u32>) = used.iter().map(of_used).unzip();
    let (carried, left_out) = companions::common(&paths, &counts)?;
    let columns = columns(&paths)?;
    let dataset = Dataset {
        folder: options.out.clone(),
        shard_size: options.size,
        compress: options.compress,
        part: options.part,
        requests: false,
        image: image::Settings::default(),
    };
    dataset.claim_with(&manifest(options, &shards, &indexed, &taken, &carried))?;
    drop(indexed);
    for line in &left_out {
        eprintln!("{line}");
    }
    let new = (0..plan.new_shards() as u32).filter(|&new| options.part.owns(new));
    let totals =
        Totals { shards: new.count() as u64, samples: plan.samples(), left_out, ..Totals::default() };
    let progress = Progress::new("resharding", "samples", 0);
    let maker = Maker {
        dataset,
        shards: &shards,
        taken: &taken,
        plan,
        carried,
        columns,
        claims: Mutex::new(Claims::new(&options.out)),
        state: Mutex::new((totals, progress)),
        threads: options.threads,
        most_open: rlimit::increase_nofile_limit(u64::MAX).unwrap_or(FEWEST_FILES) / 2,
    };
    maker.make_all()
}

fn manifest(
    options: &Options,
    shards: &[Location],
    indexed: &[Indexed],
    taken: &[Option<Vec<u32>>],
    carried: &Carried,
) -> Value {
    let (mut content, mut chosen) = (Sha256::new(), Sha256::new());
    for (shard, (index, taken)) in shards.iter().zip(indexed.iter().zip(taken)) {
        let Identity { places, images, captions } = index.identity;
        content.update(format!("{} {places} {images:?} {captions:?}\n", shard.file_name()));
        if let Some(taken) = taken {
            chosen.update((taken.len() as u64).to_le_bytes());
            for sample in taken {
                chosen.update(sample.to_le_bytes());
            }
        }
    }
    let digits = |hash: Sha256| hexadecimal(&hash.finalize()[..8]);
    json!({
        "version": VERSION,
        "input": {
            "command": RESHARD,
            "from": { "shards": shards.len(), "hash": digits(content) },
            "selection": options.selection.as_ref().map(|_| digits(chosen)),
            "shuffle": options.shuffle,
            "mentions": carried.mentions,
            "signals": carried.producers,
        },
        "shard_size": options.size,
        "compressed": options.compress,
    })
}
