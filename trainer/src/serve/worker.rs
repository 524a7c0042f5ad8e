//! A thread that owns a value and runs jobs on it, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, SyncSender, TrySendError};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle to a thread that owns a `T`. Tensors of libtorch must not be used by two threads at once, and one caller at a time makes
/// the best use of libtorch's own threads.
pub(super) struct Worker<T> {
    jobs: SyncSender<Job<T>>,
}

/// Why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Too many jobs are waiting.
    Busy,
    /// The job panicked.
    Failed,
}

impl<T: 'static> Worker<T> {
    /// Starts the thread, which first creates its `T`. At most `waiting` jobs can wait.
    pub(super) fn start(
        name: &str,
        waiting: usize,
        make: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job<T>>(waiting);
        let (made, ready) = mpsc::channel();
        let work = move || {
            let mut owned = match make() {
                Ok(owned) => {
                    let _ = made.send(Ok(()));
                    owned
                }
                Err(why) => return drop(made.send(Err(why))),
            };
            for job in queue {
                // A job that panics drops its channel, which its caller notices; the next job runs anyway.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&mut owned)));
            }
        };
        let failed = |problem: String| Error::Failed(format!("the thread {name} {problem}"));
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        started.map_err(|e| failed(format!("cannot be started: {e}")))?;
        ready.recv().map_err(|_| failed("ended before it was ready".to_owned()))??;
        Ok(Self { jobs })
    }

    /// Runs a job in the thread and returns its result.
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> std::result::Result<R, NoAnswer> {
        let (back, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |owned| {
            // Nobody waits for the result of a request whose client is gone.
            if !back.is_closed() {
                let _ = back.send(job(owned));
            }
        });
        self.jobs.try_send(job).map_err(|why| match why {
            TrySendError::Full(_) => NoAnswer::Busy,
            TrySendError::Disconnected(_) => NoAnswer::Failed,
        })?;
        answer.await.map_err(|_| NoAnswer::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_turn_and_survives_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let worker = Worker::start("counter", 4, || Ok(0)).unwrap();
        let next = || {
            worker.ask(|count: &mut i32| {
                *count += 1;
                *count
            })
        };
        runtime.block_on(async {
            assert_eq!(next().await, Ok(1));
            assert_eq!(worker.ask(|_| -> i32 { panic!("on purpose") }).await, Err(NoAnswer::Failed));
            assert_eq!(next().await, Ok(2));
        });
        let refused: Result<Worker<i32>> =
            Worker::start("none", 1, || Err(Error::Failed("no checkpoint".to_owned())));
        assert!(refused.err().unwrap().to_string().contains("checkpoint"));
    }

    #[test]
    fn says_when_too_many_wait() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let worker = std::sync::Arc::new(Worker::start("slow", 1, || Ok(())).unwrap());
        let (release, held) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel::<()>();
        let first = runtime.spawn({
            let worker = worker.clone();
            async move {
                let job = move |(): &mut ()| {
                    started.send(()).unwrap();
                    held.recv().unwrap();
                };
                worker.ask(job).await
            }
        });
        running.recv().unwrap();
        let second = runtime.spawn({
            let worker = worker.clone();
            async move { worker.ask(|()| ()).await }
        });
        // The second job takes the only place in the queue; until it has, others may find the place free.
        let busy = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            runtime.block_on(async {
                tokio::time::timeout(std::time::Duration::ZERO, worker.ask(|()| ())).await
                    == Ok(Err(NoAnswer::Busy))
            })
        });
        assert!(busy);
        release.send(()).unwrap();
        assert_eq!(runtime.block_on(first).unwrap(), Ok(()));
        let _ = runtime.block_on(second).unwrap();
    }
}
