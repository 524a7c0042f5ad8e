//! Pairs of 64-bit hashes that differ in at most `distance` bits, found without comparing all pairs.
//!
//! Cut into `distance + k` chunks, two such hashes agree in at least `k` of the chunks, whichever bits differ. So for every choice of
//! `k` chunks, the hashes are sorted by these chunks, and only those that agree in them are compared. `k` is the smallest number for
//! which few do. Where many agree all the same, they are searched in the same way by those of their bits in which they differ.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Mean size of a group that is aimed at.
const MEAN_GROUP: f64 = 64.0;

/// So many comparisons take as long as sorting one hash by one choice of chunks.
const COMPARISONS: usize = 64;

/// Calls `found` with pairs of `hashes` that differ in at most `distance` bits, on several threads; a pair may come several times.
/// The hashes are distinct. Ends early, without all pairs, when the program is interrupted.
pub(super) fn pairs(hashes: &[u64], distance: u32, threads: usize, found: impl Fn(u64, u64) + Sync) {
    if distance == 0 {
        return;
    }
    let Some((chunks, choices)) = Chunks::of(hashes, distance) else {
        return compare(hashes, distance, &found);
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, choices.len()) {
            scope.spawn(|| {
                let mut moved = Vec::with_capacity(hashes.len());
                while let Some(choice) = choices.get(next.fetch_add(1, Ordering::Relaxed))
                    && !program::interrupted()
                {
                    chunks.agreeing(hashes, choice, distance, &mut moved, &found);
                }
            });
        }
    });
}

/// The same on one thread.
fn search(hashes: &[u64], distance: u32, found: &dyn Fn(u64, u64)) {
    let Some((chunks, choices)) = Chunks::of(hashes, distance) else {
        return compare(hashes, distance, found);
    };
    let mut moved = Vec::with_capacity(hashes.len());
    for choice in &choices {
        chunks.agreeing(hashes, choice, distance, &mut moved, found);
    }
}

/// Compares all pairs.
fn compare(hashes: &[u64], distance: u32, found: &dyn Fn(u64, u64)) {
    for (i, &a) in hashes.iter().enumerate() {
        for &b in &hashes[i + 1..] {
            if (a ^ b).count_ones() <= distance {
                found(a, b);
            }
        }
    }
}

/// How the bits in which some hashes differ are cut.
struct Chunks {
    /// The bits in which all agree, as they are.
    same: u64,
    /// The others, from the lowest.
    bits: Vec<u32>,
    /// Where each chunk begins in `bits`, and where the last one ends.
    bounds: Vec<usize>,
}

impl Chunks {
    /// With all choices of the chunks that must agree; `None` if comparing all pairs takes no longer.
    fn of(hashes: &[u64], distance: u32) -> Option<(Self, Vec<Vec<usize>>)> {
        let first = *hashes.first()?;
        let vary = hashes.iter().fold(0, |vary, hash| vary | hash ^ first);
        let bits: Vec<u32> = (0..64).filter(|bit| vary >> bit & 1 == 1).collect();
        // A chunk has at least one bit.
        let most = (bits.len() as u32).saturating_sub(distance);
        let group = |agree: u32| {
            let fixed = bits.len() as f64 * f64::from(agree) / f64::from(agree + distance);
            hashes.len() as f64 / fixed.exp2()
        };
        let agree = (1..=most).find(|&agree| group(agree) <= MEAN_GROUP).unwrap_or(most);
        let count = (agree + distance) as usize;
        let choices = choices(count, agree as usize);
        if agree == 0 || hashes.len() <= COMPARISONS * choices.len() {
            return None;
        }
        let bounds = (0..=count).map(|chunk| chunk * bits.len() / count).collect();
        Some((Self { same: first & !vary, bits, bounds }, choices))
    }

    /// The pairs among the hashes that agree in the chosen chunks; `moved` is working memory.
    fn agreeing(
        &self,
        hashes: &[u64],
        choice: &[usize],
        distance: u32,
        moved: &mut Vec<u64>,
        found: &dyn Fn(u64, u64),
    ) {
        let order = self.order(choice);
        moved.clear();
        moved.extend(hashes.iter().map(|&hash| order.apply(hash)));
        moved.sort_unstable();
        let found = |a, b| found(order.undo(a), order.undo(b));
        let chosen = |hash: u64| hash.checked_shr(order.free).unwrap_or_default();
        for group in moved.chunk_by(|&a, &b| chosen(a) == chosen(b)) {
            search(group, distance, &found);
        }
    }

    /// The order of bits with the chosen chunks at the top; no bit is lost, so distances stay as they are.
    fn order(&self, choice: &[usize]) -> BitOrder {
        let chunks = 0..self.bounds.len() - 1;
        let others = chunks.filter(|chunk| !choice.contains(chunk));
        let bits = |chunk: usize| &self.bits[self.bounds[chunk]..self.bounds[chunk + 1]];
        let free = others.clone().map(|chunk| bits(chunk).len() as u32).sum();
        let mut moves: Vec<Move> = Vec::new();
        for (to, &from) in (0..).zip(others.chain(choice.iter().copied()).flat_map(bits)) {
            match moves.last_mut() {
                Some(last) if last.from + last.length == from => last.length += 1,
                _ => moves.push(Move { from, to, length: 1 }),
            }
        }
        BitOrder { same: self.same, moves, free }
    }
}

/// All choices of `some` of `count` numbers.
fn choices(count: usize, some: usize) -> Vec<Vec<usize>> {
    let mut choices = Vec::new();
    let mut choice: Vec<usize> = (0..some).collect();
    loop {
        choices.push(choice.clone());
        // The last number that can grow, and those after it next to it.
        let Some(at) = (0..some).rev().find(|&at| choice[at] < count - some + at) else { return choices };
        choice[at] += 1;
        for later in at + 1..some {
            choice[later] = choice[later - 1] + 1;
        }
    }
}

/// Neighbouring bits that stay neighbours.
struct Move {
    from: u32,
    to: u32,
    length: u32,
}

impl Move {
    fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.length)
    }
}

/// An order of the bits of hashes.
struct BitOrder {
    /// The bits that are left out, because all hashes agree in them.
    same: u64,
    moves: Vec<Move>,
    /// Number of the lowest bits that need not agree.
    free: u32,
}

impl BitOrder {
    fn apply(&self, hash: u64) -> u64 {
        self.moves.iter().fold(0, |moved, it| moved | (hash >> it.from & it.mask()) << it.to)
    }

    fn undo(&self, moved: u64) -> u64 {
        self.moves.iter().fold(self.same, |hash, it| hash | (moved >> it.to & it.mask()) << it.from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn found(hashes: &[u64], distance: u32, threads: usize) -> BTreeSet<(u64, u64)> {
        let pairs = Mutex::new(BTreeSet::new());
        super::pairs(hashes, distance, threads, |a, b| {
            pairs.lock().unwrap().insert((a.min(b), a.max(b)));
        });
        pairs.into_inner().unwrap()
    }

    fn all(hashes: &[u64], distance: u32) -> BTreeSet<(u64, u64)> {
        let mut pairs = BTreeSet::new();
        for (i, &a) in hashes.iter().enumerate() {
            for &b in &hashes[i + 1..] {
                if (a ^ b).count_ones() <= distance {
                    pairs.insert((a.min(b), a.max(b)));
                }
            }
        }
        pairs
    }

    /// Random hashes, each with some at every small distance, and a crowd that differs in a few bits only.
    fn hashes(seed: u64, count: usize) -> Vec<u64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut hashes = BTreeSet::new();
        let crowd: u64 = random.random();
        while hashes.len() < count {
            let hash: u64 = random.random();
            hashes.insert(hash);
            for bits in 0..7 {
                let near = (0..bits).fold(hash, |near, _| near ^ 1 << random.random_range(0..64_u32));
                hashes.insert(near);
            }
            hashes.insert(crowd ^ u64::from(random.random::<u32>() & 0x3ff) << 20);
        }
        hashes.into_iter().collect()
    }

    #[test]
    fn every_near_pair_is_found_and_no_other() {
        for (seed, count) in [(1, 30), (2, 500), (3, 3000)] {
            let hashes = hashes(seed, count);
            for distance in [0, 1, 2, 4, 6, 10] {
                assert!(found(&hashes, distance, 2) == all(&hashes, distance), "{count}, {distance}");
            }
        }
        assert!(found(&[], 4, 2).is_empty());
    }

    #[test]
    fn moved_bits_come_back() {
        let hashes: Vec<u64> = (0..1_u64 << 14).map(|i| 0xf000 | i.reverse_bits() | i & 0xfff).collect();
        let (chunks, choices) = Chunks::of(&hashes, 4).unwrap();
        assert_eq!(chunks.same, 0xf000);
        for choice in choices {
            let order = chunks.order(&choice);
            for hash in [hashes[0], hashes[777], hashes[16_383]] {
                assert_eq!(order.undo(order.apply(hash)), hash);
                assert_eq!(order.apply(hash).count_ones(), hash.count_ones() - 4);
            }
        }
    }

    #[test]
    fn choices_are_all_subsets() {
        assert_eq!(choices(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(choices(6, 2).len(), 15);
        assert_eq!(choices(3, 0), [Vec::<usize>::new()]);
    }
}
