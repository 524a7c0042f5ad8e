//! How many threads a training on a CPU has while other programs use the same machine.

use std::fs;
use std::time::{Duration, Instant};

/// Time between two looks at the machine.
const EVERY: Duration = Duration::from_secs(1);

/// Adapts the number of libtorch's threads to the processors that other programs leave free.
///
/// libtorch's threads wait for each other after each operation, and keep their processors busy while they do. If there are more
/// threads than processors, a thread that cannot run holds all others up: two trainings with two threads each on two processors
/// have a fifth of their speed, not half of it. With one thread each they have their share.
#[derive(Debug)]
pub(super) struct FairShare {
    most: usize,
    threads: usize,
    looked: Instant,
    last: Usage,
}

impl FairShare {
    /// With at most the current number of threads. `None` if the system does not tell who uses its processors.
    pub(super) fn new() -> Option<Self> {
        let most = tch::get_num_threads().max(1) as usize;
        Some(Self { most, threads: most, looked: Instant::now(), last: Usage::read()? })
    }

    /// Call it often, between two operations.
    pub(super) fn adapt(&mut self) {
        if self.looked.elapsed() < EVERY {
            return;
        }
        let Some(now) = Usage::read() else { return };
        let threads = now.processors_left(&self.last).clamp(1, self.most);
        (self.looked, self.last) = (Instant::now(), now);
        if threads != self.threads {
            tch::set_num_threads(threads as i32);
            self.threads = threads;
        }
    }
}

/// Time of the machine's processors since it was started, in the system's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    processors: u64,
    /// Of all processors together, idle or not.
    whole: u64,
    /// In which they worked, except for programs of low priority (`nice`), which make way.
    busy: u64,
    /// The part of `busy` in which they worked for this process.
    own: u64,
}

impl Usage {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// See proc(5).
    fn parse(machine: &str, process: &str) -> Option<Self> {
        let ticks: Option<Vec<u64>> = machine
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map(|n| n.parse().ok())
            .collect();
        let [user, nice, system, idle, waiting, hard, soft, stolen, ..] = ticks?[..] else { return None };
        let numbered = |line: &&str| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let processors = machine.lines().filter(numbered).count() as u64;
        // The second field is the program's name in brackets, which may have spaces. Then the third field follows.
        let fields: Vec<&str> = process.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let own = field(14)? + field(15)?;
        let mut busy = user + system + hard + soft;
        if field(19)? > 0 {
            busy += nice;
        }
        let whole = user + nice + system + idle + waiting + hard + soft + stolen;
        Some(Self { processors, whole, busy, own: own as u64 })
    }

    /// Number of processors that other programs have left since `before`.
    fn processors_left(&self, before: &Self) -> usize {
        let since = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let others = (since(self.busy, before.busy) - since(self.own, before.own)).max(0.0);
        let of_one = since(self.whole, before.whole) / self.processors.max(1) as f64;
        if of_one == 0.0 {
            return self.processors as usize;
        }
        (self.processors as f64 - others / of_one).round().max(0.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: &str = "4711 (a (b) c) R 1 4711 4711 0 -1 4194304 99 0 0 0 700 50 0 0 20 0 5 0 100 1 1";

    #[test]
    fn usage_is_read_from_proc() {
        let machine = "cpu  1000 200 300 4000 50 6 7 80 0 0\ncpu0 500 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1\n";
        let usage = Usage::parse(machine, PROCESS).unwrap();
        assert_eq!(usage, Usage { processors: 2, whole: 5643, busy: 1313, own: 750 });
        let nice = PROCESS.replace(" 20 0 5 ", " 39 19 5 ");
        assert_eq!(Usage::parse(machine, &nice).unwrap().busy, 1513);
        assert_eq!(Usage::parse("", PROCESS), None);
        assert!(Usage::read().is_some(), "this machine");
    }

    #[test]
    fn what_others_leave_is_used() {
        let left = |processors: u64, others: f64, own: f64| {
            let then = Usage { processors, whole: 1000, busy: 500, own: 200 };
            let ticks = |share: f64| (share * 100.0) as u64;
            let now = Usage {
                processors,
                whole: 1000 + processors * 100,
                busy: 500 + ticks(others + own),
                own: 200 + ticks(own),
            };
            now.processors_left(&then)
        };
        assert_eq!(left(2, 0.1, 1.9), 2, "alone");
        assert_eq!(left(2, 1.0, 1.0), 1, "two trainings, whether they have two threads each or one");
        assert_eq!(left(2, 2.0, 0.0), 0);
        assert_eq!(left(16, 8.1, 7.9), 8);
        assert_eq!(left(16, 3.0, 1.0), 13, "not only what it uses now");
    }
}
