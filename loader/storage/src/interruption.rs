//! Whether the program was asked to stop.

use std::sync::atomic::{AtomicI32, Ordering};

/// Work that ended before it was complete, because the program was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("interrupted: {0}")]
pub struct Interrupted(String);

impl Interrupted {
    /// `left` says what was not done, or how to resume.
    pub fn new(left: impl Into<String>) -> Self {
        Self(left.into())
    }
}

/// The signal that asked the program to stop; 0 for none. One flag for the process, as signals are sent to processes.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether the program was asked to stop. Long work calls this between units of work (a shard, a batch), finishes or drops
/// the current unit, and returns, with [`Interrupted`] unless it is complete.
pub fn interrupted() -> bool {
    signal().is_some()
}

/// The number of the signal that asked the program to stop.
pub fn signal() -> Option<i32> {
    Some(SIGNAL.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
}

/// Asks the program to stop; `signal` is the number of the signal that its handler has received. Returns whether it had been
/// asked before.
pub fn interrupt(signal: i32) -> bool {
    SIGNAL.swap(signal, Ordering::Relaxed) != 0
}
