//! How this process was launched: alone, or as one of several by torchrun, srun or plain variables.

use crate::error::{Error, Result};

/// This process among those that were launched together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number on its machine: the GPU it uses.
    pub local_rank: usize,
    /// Where the ranks' store is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What its keys begin with: torchrun keeps one store over restarts.
    pub prefix: String,
    /// Whether torchrun keeps the store; otherwise rank 0 does.
    pub store_is_kept: bool,
}

impl Launch {
    /// From the process's environment; none for a process alone.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::from(&|name| std::env::var(name).ok())
    }

    /// Whether this process opens the store.
    pub fn serves_store(&self) -> bool {
        self.rank == 0 && !self.store_is_kept
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // The first launcher whose rank and world are both set; torchrun's win inside a SLURM job.
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
                problem: format!("the environment has {name}={text:?}, which is no number"),
            })
        };
        let (rank, world) = (number(rank_name)?.unwrap_or(0), number(world_name)?.unwrap_or(1));
        if world == 1 {
            return Ok(None);
        }
        if rank >= world {
            let problem = format!("the environment has {rank_name}={rank} of {world_name}={world}");
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
            "set it to rank 0's host, as MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)",
        )?;
        let port = wanted("MASTER_PORT", "set it to a free port of that host, the same for all ranks")?;
        let port = port.trim().parse().map_err(|_| Error::Group {
            problem: format!("the environment has MASTER_PORT={port:?}, which is no port"),
        })?;
        let store_is_kept = variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        let attempt = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
        Ok(Some(Self {
            rank,
            world,
            local_rank: number(local_name)?.unwrap_or(0),
            host,
            port,
            prefix: format!("trainer/attempt {attempt}/"),
            store_is_kept,
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
        assert!(found.serves_store(), "nobody keeps one");

        // torchrun inside a SLURM job of one task a node.
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
