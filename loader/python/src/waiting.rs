//! Waiting for threads of Rust: without the interpreter's lock, with an eye on signals, on the end of the interpreter, and on
//! forks of the process.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use storage::Location;

/// How long Ctrl-C may go unnoticed.
const TICK: Duration = Duration::from_millis(50);

/// How long the end of the interpreter waits for threads that wait here.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// The thread that ends the interpreter, once it is about to end.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// Number of threads that wait, and do not have the interpreter's lock meanwhile.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A thread that waits. The interpreter must not end before it has stopped: taking its lock after that would kill the thread in
/// the middle of Rust code.
struct Waiting;

impl Waiting {
    fn start() -> PyResult<Self> {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let waiting = Self;
        not_ending()?;
        Ok(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// When the interpreter is ending, ends threads that are left as Python does it: without a message.
fn not_ending() -> PyResult<()> {
    const REASON: &str = "the interpreter is ending, so there is nothing more to wait for";
    match ENDING.get() {
        None => Ok(()),
        Some(thread) if *thread == thread::current().id() => Err(PyRuntimeError::new_err(REASON)),
        Some(_) => Err(PySystemExit::new_err(REASON)),
    }
}

/// Ends all waiting, now and later; the package calls it when the interpreter ends.
#[pyfunction]
pub(crate) fn stop_waiting(py: Python<'_>) {
    let _ = ENDING.set(thread::current().id());
    py.detach(|| {
        let until = Instant::now() + LAST_WAIT;
        while WAITING.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(TICK / 10);
        }
    });
}

/// Calls `step`, which may take the given time, until it returns something. In between, signals are handled, as Ctrl-C is.
pub(crate) fn until<T: Send>(
    py: Python<'_>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<T> {
    let _waiting = Waiting::start()?;
    loop {
        if let Some(result) = py.detach(|| step(TICK)) {
            return Ok(result);
        }
        py.check_signals()?;
        not_ending()?;
    }
}

/// Does work on a thread of its own and waits for it. When the wait is interrupted, the thread ends by itself, and its result is
/// dropped.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new().name("simzss_data".into()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    })?;
    let receiver = Mutex::new(receiver);
    let result =
        until(py, |tick| match receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(tick) {
            Ok(result) => Some(Some(result)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(None),
        })?;
    match result {
        Some(result) => Ok(result),
        None => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => Err(PyRuntimeError::new_err("a thread has ended without a result")),
        },
    }
}

/// The process that something belongs to. A fork has none of the threads of its parent, and waiting for them would take forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn is_here(self) -> bool {
        self == Self::this()
    }

    /// Refuses to go on in a fork.
    pub(crate) fn check(self, what: &str) -> PyResult<()> {
        if self.is_here() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "{what} belongs to process {}, of which this process is a fork without its threads; begin anew here, or start \
             processes with the method \"spawn\"",
            self.0
        )))
    }
}

/// The process in which remote files were used first; 0 if in none.
static REMOTE: AtomicU32 = AtomicU32::new(0);

/// Refuses remote files in a fork whose parent has used some: the threads that transfer them are the parent's.
pub(crate) fn check_remote<'a>(files: impl IntoIterator<Item = &'a Location>) -> PyResult<()> {
    if !files.into_iter().any(Location::is_remote) {
        return Ok(());
    }
    let this = std::process::id();
    match REMOTE.compare_exchange(0, this, Ordering::SeqCst, Ordering::SeqCst) {
        Err(other) if other != this => Err(PyRuntimeError::new_err(format!(
            "process {other} has used remote files before it was forked, so this fork cannot; start processes with the method \
             \"spawn\", or open remote files in the new processes only"
        ))),
        _ => Ok(()),
    }
}
