//! How this process was launched: alone, or as one of several processes by torchrun, srun or environment variables.

use crate::error::{Error, Result};

/// This process as one of those that were launched together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its rank, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Its number on its machine, which is also the number of the GPU that it uses.
    pub local_rank: usize,
    /// Host of the key-value store through which the ranks find each other.
    pub host: String,
    /// Port of the store.
    pub port: u16,
    /// Prefix of the keys of this launch: torchrun keeps one store over several restarts.
    pub prefix: String,
    /// Whether torchrun serves the store; otherwise rank 0 does.
    pub store_is_external: bool,
}

impl Launch {
    /// From the environment of the process; `None` for a single process.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::from(&|name| std::env::var(name).ok())
    }

    /// Whether this process serves the store.
    pub fn serves_store(&self) -> bool {
        self.rank == 0 && !self.store_is_external
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // The first launcher whose rank and world size are both set: inside a SLURM job, torchrun comes first.
        let families =
            [["RANK", "WORLD_SIZE", "LOCAL_RANK"], ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"]];
        let Some([rank_name, world_name, local_name]) = families
            .into_iter()
            .find(|[rank, world, _]| variable(rank).is_some() && variable(world).is_some())
        else {
            return Ok(None);
        };
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            text.trim().parse().map(Some).map_err(|_| Error::Group {
                problem: format!("the environment variable {name}={text:?} is not a number"),
            })
        };
        let (rank, world) = (number(rank_name)?.unwrap_or(0), number(world_name)?.unwrap_or(1));
        if world == 1 {
            return Ok(None);
        }
        if rank >= world {
            let problem =
                format!("the environment variable {rank_name}={rank} must be less than {world_name}={world}");
            return Err(Error::Group { problem });
        }
        let wanted = |name: &str, how: &str| {
            variable(name).ok_or_else(|| Error::Group {
                problem: format!(
                    "{world_name}={world}, but {name} is not set; {how}, or unset {world_name} to run alone"
                ),
            })
        };
        let host = wanted(
            "MASTER_ADDR",
            "set it to the host of rank 0, for example MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)",
        )?;
        let port = wanted("MASTER_PORT", "set it to a free port of that host, the same on all ranks")?;
        let port = port.trim().parse().map_err(|_| Error::Group {
            problem: format!("the environment variable MASTER_PORT={port:?} is not a port number"),
        })?;
        let store_is_external = variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        let attempt = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
        Ok(Some(Self {
            rank,
            world,
            local_rank: number(local_name)?.unwrap_or(0),
            host,
            port,
            prefix: format!("trainer/attempt {attempt}/"),
            store_is_external,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::from(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    const MASTER: [(&str, &str); 2] = [("MASTER_ADDR", "node1"), ("MASTER_PORT", "29500")];

    #[test]
    fn launchers_are_recognised() {
        let torchrun = [("RANK", "3"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")];
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")];
        let found = launch(&[&torchrun[..], &MASTER, &agent].concat()).unwrap().unwrap();
        assert_eq!((found.rank, found.world, found.local_rank), (3, 8, 1));
        assert_eq!((found.host.as_str(), found.port), ("node1", 29_500));
        assert!(found.prefix.contains('2') && !found.serves_store());

        let srun = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_LOCALID", "0")];
        let found = launch(&[&srun[..], &MASTER].concat()).unwrap().unwrap();
        assert_eq!((found.rank, found.world), (0, 4));
        assert!(found.serves_store(), "no other process does");

        // torchrun inside a SLURM job with one task per node.
        let both = [&torchrun[..], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2")], &MASTER].concat();
        assert_eq!(launch(&both).unwrap().unwrap().world, 8);
    }

    #[test]
    fn a_process_alone_needs_nothing() {
        assert_eq!(launch(&[]).unwrap(), None);
        assert_eq!(launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        assert_eq!(launch(&[("SLURM_NTASKS", "4")]).unwrap(), None, "a shell of salloc is no task");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (variables, named) in [
            (vec![("RANK", "1"), ("WORLD_SIZE", "2")], "MASTER_ADDR"),
            (vec![("RANK", "1"), ("WORLD_SIZE", "2"), MASTER[0]], "MASTER_PORT"),
            (vec![("RANK", "1"), ("WORLD_SIZE", "2"), MASTER[0], ("MASTER_PORT", "many")], "\"many\""),
            (vec![("RANK", "2"), ("WORLD_SIZE", "2")], "RANK=2"),
            (vec![("RANK", "one"), ("WORLD_SIZE", "2")], "RANK=\"one\""),
        ] {
            let message = launch(&variables).unwrap_err().to_string();
            assert!(message.contains(named), "{named}: {message}");
        }
    }
}
