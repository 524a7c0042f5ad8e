//! The engine's threads, with stacks for deep plans as far as the address space has room for them.

use std::sync::mpsc;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Error, Result};
use tokio::runtime::{Builder, Runtime};

/// Stack size of a thread, bytes. The planner is recursive: a condition of a thousand terms needs a thousand nested
/// calls. Only the used part takes memory, but the address space may be limited (`ulimit -v`, overcommitment turned
/// off): then the threads get the half, the quarter, and so on, but not less than [`MIN_STACK`].
const STACK: usize = 256 << 20;
const MIN_STACK: usize = 2 << 20;

/// Number of threads that read files, started before the query: a thread that cannot be started later would leave its
/// work to these instead of hanging.
const READERS: usize = 4;

/// How long they wait for work: longer than any query.
const READERS_STAY: Duration = Duration::from_hours(24 * 365);

/// How long each of them may take to start.
const START: Duration = Duration::from_secs(5);

/// Starts the threads, with the largest stacks that the address space has room for.
pub(crate) fn start() -> Result<Runtime> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut stack = STACK;
    loop {
        match runtime(workers, stack) {
            Ok(runtime) => return Ok(runtime),
            Err(_) if stack > MIN_STACK => stack /= 2,
            Err(error) => {
                return Err(Error::new(error).context(format!(
                    "cannot start the {} threads of the engine; allow more memory (ulimit -v) or processes (ulimit -u)",
                    workers + READERS
                )));
            }
        }
    }
}

/// A runtime whose threads have this stack size; an error if there is not enough memory for them.
fn runtime(workers: usize, stack: usize) -> io::Result<Runtime> {
    // Twice as many: the threads need memory for other things, too.
    try_threads(2 * (workers + READERS), stack)?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers)
        .thread_stack_size(stack)
        .thread_keep_alive(READERS_STAY)
        .build()?;
    let (started, all) = mpsc::channel();
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write();
    for _ in 0..READERS {
        let (started, gate) = (started.clone(), Arc::clone(&gate));
        runtime.spawn_blocking(move || {
            let _ = started.send(());
            // A thread that ended its work here would take the next one, and fewer would be started.
            drop(gate.read());
        });
    }
    let readers = (0..READERS).map_while(|_| all.recv_timeout(START).ok()).count();
    drop(closed);
    // The runtime itself does not report a thread that it could not start.
    if readers == 0 {
        runtime.shutdown_background();
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(runtime)
}

/// Starts this number of threads at the same time and ends them again: whether it can be done.
fn try_threads(count: usize, stack: usize) -> io::Result<()> {
    let all = RwLock::new(());
    thread::scope(|scope| {
        let none_ends = all.write();
        let started: io::Result<Vec<_>> = (0..count)
            .map(|_| thread::Builder::new().stack_size(stack).spawn_scoped(scope, || drop(all.read())))
            .collect();
        drop(none_ends);
        started.map(drop)
    })
}
