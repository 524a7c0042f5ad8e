//! The processes of one run: who they are, and what they tell each other. A run of one process needs none of it.
//!
//! Tensors on GPUs travel by NCCL, everything else by Gloo. Both follow the same rule: every rank calls the same
//! operations in the same order.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::launch::Launch;
use crate::torch::{Gloo, Id, Nccl, ShimError, Store};

/// How long ranks that lost one wait to hear of it before they say which it was.
const ROLL_CALL: Duration = Duration::from_secs(3);

/// This process among those of its run.
#[derive(Debug)]
pub struct Group {
    rank: usize,
    world: usize,
    links: Option<Links>,
}

/// Dropped in this order: the store outlives those who met over it.
#[derive(Debug)]
struct Links {
    device: Option<Nccl>,
    host: Gloo,
    store: Store,
    address: String,
}

impl Group {
    /// A run of one process.
    pub fn alone() -> Self {
        Self { rank: 0, world: 1, links: None }
    }

    /// Meets the other processes that were launched with this one; operations that take longer than `timeout` fail.
    pub fn join(launch: &Launch, device: Device, timeout: Duration) -> Result<Self> {
        let Launch { rank, world, .. } = *launch;
        let address = format!("{}:{}", launch.host, launch.port);
        let meet = |source: ShimError| Error::Group {
            problem: format!("rank {rank} of {world} did not meet the others at {address}: {source}"),
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
        Ok(Self { rank, world, links: Some(Links { device, host, store, address }) })
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Whether this is the process that writes the run's folder and speaks for it.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The numbers of every rank, of which each may give any number.
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

    /// The rows of every rank, one rank's after the other's; all give as many.
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

    /// The sum over the ranks of `rows`, of which each rank keeps its own part: the way back of [`Group::gather`].
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

    /// Overwrites the tensors with rank 0's.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.in_place(tensors, Gloo::broadcast, Nccl::broadcast)
    }

    fn in_place(
        &self,
        tensors: &[Tensor],
        on_host: impl Fn(&Gloo, &[Tensor]) -> std::result::Result<(), ShimError>,
        on_device: impl Fn(&Nccl, &[Tensor]) -> std::result::Result<(), ShimError>,
    ) -> Result<()> {
        let Some(links) = &self.links else { return Ok(()) };
        // Collectives write behind autograd's back.
        let detached: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
        let done = match (&links.device, detached.first().map(Tensor::device)) {
            (_, None) => Ok(()),
            (Some(nccl), Some(Device::Cuda(_))) => on_device(nccl, &detached),
            _ => on_host(&links.host, &detached),
        };
        done.map_err(|e| self.lost(links, &e))
    }

    /// Tells the others why this rank is about to end. They find out that it did; this is how they learn the reason.
    pub fn say_why(&self, error: &Error) {
        if let Some(links) = &self.links
            && !matches!(error, Error::Group { .. })
        {
            // Nothing can be done where the store is gone too.
            let _ = links.store.set(&format!("stopped/{}", self.rank), &error.to_string());
            if self.is_first() {
                std::thread::sleep(ROLL_CALL);
            }
        }
    }

    /// The error for a failed operation, which names the rank that is missing. Ranks that are left say so in the store;
    /// whoever has not after a while is the lost one.
    fn lost(&self, links: &Links, source: &ShimError) -> Error {
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
                    None => format!("an exchange between the ranks failed: {source}"),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.is_first() {
            // The others ask this rank's store for another moment.
            std::thread::sleep(ROLL_CALL);
        }
        let problem = problem.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            format!(
                "the store at {} is gone, so rank 0's process has ended; its own output says why",
                links.address
            )
        });
        Error::Group { problem: format!("{problem} (seen by rank {} of {})", self.rank, self.world) }
    }
}
