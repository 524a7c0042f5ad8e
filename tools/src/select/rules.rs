//! The rules that look at signals and concepts.

use std::num::{NonZeroU32, NonZeroU64};

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_cast::cast;
use arrow_schema::DataType;
use loader::shards::signals::Signals;
use program::Interrupted;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::dataset::{Dataset, Fate};
use super::names::Names;
use crate::classes::Classes;
use crate::each::each;
use crate::stats::sidecar_of;

/// Keeps the samples with the highest values of a signal, `PRODUCER.COLUMN`; of equal ones, the first.
pub(super) fn best(dataset: &mut Dataset, fraction: f64, by: &str, threads: usize) -> Result<()> {
    let (producer, column) = by
        .split_once('.')
        .with_context(|| format!("--by {by} is not PRODUCER.COLUMN, such as score.similarity"))?;
    let values = each(dataset.shards.len(), threads, "reading signals", |number| {
        let shard = &dataset.shards[number];
        let signals = Signals::open(&shard.path, producer, Some(shard.fates.len() as u32), Some(&[column]))?;
        let Some(values) = signals.columns().column_by_name(column) else {
            bail!("the {producer} signals of {} have no column {column}", shard.path);
        };
        if !values.data_type().is_numeric() {
            bail!(
                "the column {column} of the {producer} signals has the type {}; --by needs a number",
                values.data_type()
            );
        }
        let values = cast(values, &DataType::Float64)?;
        Ok(values.as_primitive::<Float64Type>().iter().collect::<Vec<Option<f64>>>())
    })?;
    let mut ranked = Vec::new();
    let mut left = 0_u32;
    for (shard, (of_shard, values)) in dataset.shards.iter_mut().zip(&values).enumerate() {
        for (sample, (fate, value)) in of_shard.fates.iter_mut().zip(values).enumerate() {
            if *fate != Fate::Kept {
                continue;
            }
            left += 1;
            *fate = Fate::Dropped;
            ranked.extend(
                value.filter(|value| !value.is_nan()).map(|value| (value, shard as u32, sample as u32)),
            );
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    for (_, shard, sample) in ranked.into_iter().take((f64::from(left) * fraction).round() as usize) {
        dataset.shards[shard as usize].fates[sample as usize] = Fate::Kept;
    }
    Ok(())
}

/// Keeps every sample with the probability 1 - prod(1 - min(1, most / count)) over its names.
pub(super) fn balance(
    dataset: &mut Dataset,
    names: &Names<'_>,
    most: NonZeroU32,
    seed: u64,
    threads: usize,
) -> Result<()> {
    let likely: Vec<f64> =
        names.samples.iter().map(|&count| (f64::from(most.get()) / count.max(1) as f64).min(1.0)).collect();
    let fates = each(dataset.shards.len(), threads, "balancing", |number| {
        let shard = &dataset.shards[number];
        let mut random = shard.random(seed, "balance");
        let draws: Vec<f64> = (0..shard.fates.len()).map(|_| random.random()).collect();
        let without_name = |fate: &Fate| if *fate == Fate::Kept { Fate::Dropped } else { *fate };
        let mut fates: Vec<Fate> = shard.fates.iter().map(without_name).collect();
        names.visit(&sidecar_of(&shard.path)?, |sample, of_sample| {
            let sample = sample as usize;
            let none: f64 = of_sample.iter().map(|&name| 1.0 - likely[name as usize]).product();
            if shard.fates[sample] == Fate::Kept {
                fates[sample] = if draws[sample] < 1.0 - none { Fate::Kept } else { Fate::Thinned };
            }
        })?;
        Ok(fates)
    })?;
    for (shard, fates) in dataset.shards.iter_mut().zip(fates) {
        shard.fates = fates;
    }
    Ok(())
}

/// Leaves samples out, in random order, that have a name which `most` samples before have.
pub(super) fn cap(dataset: &mut Dataset, names: &Names<'_>, most: NonZeroU32, seed: u64) -> Result<()> {
    let mut kept = vec![0_u32; names.samples.len()];
    in_random_order(dataset, seed, "cap", |sidecar, fates, order| {
        let mut of_samples = vec![Vec::new(); fates.len()];
        names.visit(sidecar, |sample, names| of_samples[sample as usize] = names.to_vec())?;
        for sample in order {
            if fates[sample] != Fate::Kept {
                continue;
            }
            let its = &of_samples[sample];
            if its.iter().any(|&name| kept[name as usize] >= most.get()) {
                fates[sample] = Fate::Thinned;
            } else {
                for &name in its {
                    kept[name as usize] += 1;
                }
            }
        }
        Ok(())
    })
}

/// Keeps this many samples, drawn at random: those with the smallest random numbers. They are drawn twice, so that only a few have
/// to be stored.
pub(super) fn draw(dataset: &mut Dataset, most: NonZeroU64, seed: u64) {
    /// The first bits of a number say in which of so many equal parts of all numbers it is.
    const PARTS: u32 = 16;
    let part_of = |number: u64| (number >> (u64::BITS - PARTS)) as usize;
    let mut samples_in = vec![0_u64; 1 << PARTS];
    each_kept(dataset, seed, |_, number, _| samples_in[part_of(number)] += 1);
    // The part with which the samples become too many, and how many of it are kept.
    let mut left = most.get();
    let last = samples_in.iter().position(|&samples| match left.checked_sub(samples) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    let Some(last) = last else { return };
    let mut of_last = Vec::new();
    each_kept(dataset, seed, |place, number, fate| {
        if part_of(number) > last {
            *fate = Fate::Thinned;
        } else if part_of(number) == last {
            of_last.push((number, place));
        }
    });
    of_last.sort_unstable();
    for (_, (shard, sample)) in of_last.into_iter().skip(left as usize) {
        dataset.shards[shard].fates[sample] = Fate::Thinned;
    }
}

/// Calls `work` with the shard and the place of every sample that is kept so far, a random number, and its fate.
fn each_kept(dataset: &mut Dataset, seed: u64, mut work: impl FnMut((usize, usize), u64, &mut Fate)) {
    for (number, shard) in dataset.shards.iter_mut().enumerate() {
        let mut random = shard.random(seed, "count");
        for (sample, fate) in shard.fates.iter_mut().enumerate() {
            let drawn = random.random();
            if *fate == Fate::Kept {
                work((number, sample), drawn, fate);
            }
        }
    }
}

/// Takes samples back, in random order, as long as one of their classes has fewer than `least`. Returns the classes that still
/// have fewer, with their number of samples.
pub(super) fn cover(
    dataset: &mut Dataset,
    classes: &Classes,
    least: NonZeroU32,
    seed: u64,
) -> Result<Vec<(String, u32)>> {
    let mut kept = vec![0_u32; classes.names.len()];
    let mut thinned = false;
    let visit = |sidecar: &concepts::sidecar::Sidecar, samples: usize| {
        let mut of_samples: Vec<Vec<usize>> = vec![Vec::new(); samples];
        for sample in sidecar.samples_with_mentions() {
            let its = &mut of_samples[sample as usize];
            its.extend(sidecar.mentions(sample).flat_map(|row| classes.of(&row).to_vec()));
            its.sort_unstable();
            its.dedup();
        }
        of_samples
    };
    in_random_order(dataset, seed, "cover", |sidecar, fates, _| {
        for (its, fate) in visit(sidecar, fates.len()).into_iter().zip(&*fates) {
            thinned |= *fate == Fate::Thinned;
            if *fate == Fate::Kept {
                for class in its {
                    kept[class] += 1;
                }
            }
        }
        Ok(())
    })?;
    if thinned {
        in_random_order(dataset, seed, "cover", |sidecar, fates, order| {
            let of_samples = visit(sidecar, fates.len());
            for sample in order {
                let its = &of_samples[sample];
                if fates[sample] == Fate::Thinned && its.iter().any(|&class| kept[class] < least.get()) {
                    fates[sample] = Fate::Kept;
                    for &class in its {
                        kept[class] += 1;
                    }
                }
            }
            Ok(())
        })?;
    }
    let few = classes.names.iter().cloned().zip(kept).filter(|(_, kept)| *kept < least.get());
    Ok(few.collect())
}

/// Calls `work` with every shard's sidecar, the fates of its samples, and its samples in random order; shards come in random
/// order too.
fn in_random_order(
    dataset: &mut Dataset,
    seed: u64,
    purpose: &str,
    mut work: impl FnMut(&concepts::sidecar::Sidecar, &mut [Fate], Vec<usize>) -> Result<()>,
) -> Result<()> {
    let mut shards: Vec<usize> = (0..dataset.shards.len()).collect();
    shards.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    for number in shards {
        if program::interrupted() {
            bail!(Interrupted::new("nothing was written".to_owned()));
        }
        let shard = &mut dataset.shards[number];
        let sidecar = sidecar_of(&shard.path)?;
        let mut samples: Vec<usize> = (0..shard.fates.len()).collect();
        samples.shuffle(&mut shard.random(seed, purpose));
        work(&sidecar, &mut shard.fates, samples)?;
    }
    Ok(())
}
