//! The process group of a run: ranks, and collective operations between them. A run with a single process needs none of it.
//!
//! NCCL is used for tensors on GPUs (tested with a single rank only), Gloo for everything else. In both, every rank must call the
//! same operations in the same order.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::launch::Launch;
use crate::error::{Error, Result};
use crate::torch::{Gloo, Id, Nccl, ShimError, Store};

/// After a failed operation, how long the ranks wait for a sign of life of the others before they report which one is missing.
const ROLL_CALL: Duration = Duration::from_secs(3);

/// This process as one of the processes of its run.
#[derive(Debug)]
pub struct Group {
    rank: usize,
    world: usize,
    links: Option<Links>,
}

/// Dropped in this order: the store must outlive the connections that were made through it.
#[derive(Debug)]
struct Links {
    device: Option<Nccl>,
    host: Gloo,
    store: Store,
    address: String,
    timeout: Duration,
}

impl Group {
    /// A run with a single process.
    pub fn alone() -> Self {
        Self { rank: 0, world: 1, links: None }
    }

    /// Connects to the other processes that were launched with this one. Operations that take longer than `timeout` fail.
    pub fn join(launch: &Launch, device: Device, timeout: Duration) -> Result<Self> {
        let Launch { rank, world, .. } = *launch;
        let address = format!("{}:{}", launch.host, launch.port);
        let meet = |source: ShimError| Error::Group {
            problem: format!("rank {rank} of {world} could not connect to the others at {address}: {source}"),
        };
        let store = Store::connect(&launch.host, launch.port, launch.serves_store(), &launch.prefix, timeout)
            .map_err(meet)?;
        let host = Gloo::join(&store, rank, world, timeout).map_err(meet)?;
        let device = match device {
            Device::Cuda(index) => {
                let id = Tensor::zeros([128], (Kind::Uint8, Device::Cpu));
                if rank == 0 {
                    let Id(bytes) = Nccl::id().map_err(meet)?;
                    tch::no_grad(|| id.shallow_clone().copy_(&Tensor::from_slice(&bytes)));
                }
                host.broadcast(std::slice::from_ref(&id)).map_err(meet)?;
                let mut bytes = [0u8; 128];
                id.f_copy_data_u8(&mut bytes, 128)?;
                Some(Nccl::join(Id(bytes), rank, world, index).map_err(meet)?)
            }
            _ => None,
        };
        Ok(Self { rank, world, links: Some(Links { device, host, store, address, timeout }) })
    }

    /// The rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Whether this is rank 0, which writes the run folder and the log.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Runs `wait`, which waits for the GPU. If a rank is lost, NCCL's operations on the GPU never end: after the time-out of the
    /// group they are aborted, and the next operation of the group fails.
    pub fn watch<T>(&self, wait: impl FnOnce() -> T) -> T {
        let Some(Links { device: Some(nccl), timeout, .. }) = &self.links else { return wait() };
        let (waited, end) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                if end.recv_timeout(*timeout) == Err(RecvTimeoutError::Timeout) {
                    nccl.abort();
                }
            });
            let out = wait();
            drop(waited);
            out
        })
    }

    /// Gathers the numbers of all ranks; the ranks may give different amounts.
    pub fn gather_numbers(&self, numbers: &[i64]) -> Result<Vec<Vec<i64>>> {
        if self.world == 1 {
            return Ok(vec![numbers.to_vec()]);
        }
        let gather = |numbers: &[i64]| -> Result<Vec<i64>> {
            let all = self.gather(&Tensor::from_slice(numbers))?;
            Ok(Vec::<i64>::try_from(all)?)
        };
        let counts = gather(&[numbers.len() as i64])?;
        let most = counts.iter().max().copied().unwrap_or(0) as usize;
        if most == 0 {
            return Ok(vec![Vec::new(); self.world]);
        }
        let mut padded = numbers.to_vec();
        padded.resize(most, 0);
        let all = gather(&padded)?;
        let rows = all.chunks_exact(most).zip(counts);
        Ok(rows.map(|(row, count)| row[..count as usize].to_vec()).collect())
    }

    /// Concatenates the rows of all ranks in the order of the ranks. All must have the same number of rows.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        let Some(links) = &self.links else { return Ok(rows.shallow_clone()) };
        let rows = rows.detach().contiguous();
        let mut size = rows.size();
        size[0] *= self.world as i64;
        let out = Tensor::zeros(size, (rows.kind(), rows.device()));
        let done = match (&links.device, rows.device()) {
            (Some(nccl), Device::Cuda(_)) => nccl.gather(&out, &rows),
            _ => links.host.gather(&out, &rows),
        };
        done.map_err(|e| self.lost(links, &e))?;
        Ok(out)
    }

    /// Reduce-scatter: sums `rows` over the ranks, and each rank keeps its own part of the rows. This is the backward pass of
    /// [`Group::gather`].
    pub fn scatter_sum(&self, rows: &Tensor) -> Result<Tensor> {
        let Some(links) = &self.links else { return Ok(rows.shallow_clone()) };
        let rows = rows.detach().contiguous();
        let mut size = rows.size();
        size[0] /= self.world as i64;
        let out = Tensor::zeros(size, (rows.kind(), rows.device()));
        let done = match (&links.device, rows.device()) {
            (Some(nccl), Device::Cuda(_)) => nccl.scatter(&out, &rows),
            _ => links.host.scatter(&out, &rows),
        };
        done.map_err(|e| self.lost(links, &e))?;
        Ok(out)
    }

    /// Sums each tensor over the ranks, in place.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.in_place(tensors, Gloo::sum, Nccl::sum)
    }

    /// Overwrites the tensors with those of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.in_place(tensors, Gloo::broadcast, Nccl::broadcast)
    }

    /// The bytes that rank 0 gives; those of the others are ignored.
    pub fn of_first(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.links.is_none() {
            return Ok(bytes);
        }
        let length = Tensor::from_slice(&[bytes.len() as i64]);
        self.broadcast(std::slice::from_ref(&length))?;
        let length = length.int64_value(&[0]);
        if length == 0 {
            return Ok(Vec::new());
        }
        let sent = if self.is_first() {
            Tensor::from_slice(&bytes)
        } else {
            Tensor::zeros([length], (Kind::Uint8, Device::Cpu))
        };
        self.broadcast(std::slice::from_ref(&sent))?;
        let mut received = vec![0; length as usize];
        sent.f_copy_data_u8(&mut received, length as usize)?;
        Ok(received)
    }

    fn in_place(
        &self,
        tensors: &[Tensor],
        on_host: impl Fn(&Gloo, &[Tensor]) -> std::result::Result<(), ShimError>,
        on_device: impl Fn(&Nccl, &[Tensor]) -> std::result::Result<(), ShimError>,
    ) -> Result<()> {
        let Some(links) = &self.links else { return Ok(()) };
        // Collective operations write to the memory without autograd.
        let detached: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
        let done = match (&links.device, detached.first().map(Tensor::device)) {
            (_, None) => Ok(()),
            (Some(nccl), Some(Device::Cuda(_))) => on_device(nccl, &detached),
            _ => on_host(&links.host, &detached),
        };
        done.map_err(|e| self.lost(links, &e))
    }

    /// Tells the other ranks why this rank is about to end. They notice by themselves that it ended, but not why.
    pub fn announce_failure(&self, error: &Error) {
        if let Some(links) = &self.links
            && !matches!(error, Error::Group { .. })
        {
            // If the store is gone too, nothing can be done.
            let _ = links.store.set(&format!("stopped/{}", self.rank), &error.to_string());
            if self.is_first() {
                std::thread::sleep(ROLL_CALL);
            }
        }
    }

    /// The error for a failed operation, which says which rank is missing. The remaining ranks set a key in the store; a rank that
    /// has not done so after a while is the missing one.
    fn lost(&self, links: &Links, source: &ShimError) -> Error {
        if let Some(nccl) = &links.device {
            nccl.abort();
        }
        let started = Instant::now();
        let here = |rank: usize| links.store.get(&format!("left over/{rank}"));
        let reason = |rank: usize| links.store.get(&format!("stopped/{rank}"));
        let mut problem =
            links.store.set(&format!("left over/{}", self.rank), "").err().map(|_| String::new());
        while problem.is_none() {
            let mut missing = None;
            for rank in (0..self.world).filter(|&rank| rank != self.rank) {
                match (reason(rank), here(rank)) {
                    (Ok(Some(why)), _) => problem = Some(format!("rank {rank} stopped: {why}")),
                    (Ok(None), Ok(Some(_))) => {}
                    (Ok(None), Ok(None)) => missing = missing.or(Some(rank)),
                    _ => problem = Some(String::new()),
                }
            }
            if problem.is_none() && (missing.is_none() || started.elapsed() > ROLL_CALL) {
                problem = Some(match missing {
                    Some(rank) => format!("rank {rank} is gone or does not answer"),
                    None => format!("a collective operation of the ranks failed: {source}"),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.is_first() {
            // The other ranks still read the store, which ends with this process.
            std::thread::sleep(ROLL_CALL);
        }
        let problem = problem.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            format!(
                "rank 0 has ended, because its store at {} is gone; see the output of rank 0 for the reason",
                links.address
            )
        });
        Error::Group { problem: format!("{problem} (reported by rank {} of {})", self.rank, self.world) }
    }
}
