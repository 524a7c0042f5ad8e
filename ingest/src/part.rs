//! Which shards one process of several makes: `--index I --count N`, or what a scheduler says.

use crate::error::Error;

/// Process `index` of `count`: makes the shards whose number leaves that remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// Everything.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// From the flags; without them from the job array or step that the process is part of.
    pub fn new(index: Option<u32>, count: Option<u32>) -> Result<Self, Error> {
        let part = match (index, count) {
            (Some(index), Some(count)) => Self { index, count },
            (None, None) => Self::of_scheduler(|name| std::env::var(name).ok()).unwrap_or(Self::ALL),
            _ => return Err(Error::Usage("--index and --count belong together".to_owned())),
        };
        if part.index >= part.count {
            let Self { index, count } = part;
            return Err(Error::Usage(format!(
                "--index {index} of --count {count}: indices go from 0 to count - 1"
            )));
        }
        Ok(part)
    }

    /// SLURM's arrays (which may start anywhere), SLURM's tasks, Kubernetes' indexed jobs (whose number of completions
    /// the job's file passes on as JOB_COMPLETIONS).
    fn of_scheduler(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.parse::<u32>().ok();
        let processes = number("SLURM_PROCID").zip(number("SLURM_NTASKS"));
        if let (Some(id), Some(count)) = (number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_COUNT")) {
            let first = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
            let index = id.saturating_sub(first) / step;
            // A task of an array may itself be several processes.
            return Some(match processes {
                Some((process, processes)) => {
                    Self { index: index * processes + process, count: count * processes }
                }
                None => Self { index, count },
            });
        }
        let pods = || number("JOB_COMPLETION_INDEX").zip(number("JOB_COMPLETIONS"));
        processes.or_else(pods).map(|(index, count)| Self { index, count })
    }

    /// Whether a shard is this process's work.
    pub fn owns(self, shard: u32) -> bool {
        shard % self.count == self.index
    }

    /// Process and number of processes, when there are several.
    pub fn several(self) -> Option<(u32, u32)> {
        (self.count > 1).then_some((self.index, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(variables: &[(&str, &str)]) -> Option<Part> {
        Part::of_scheduler(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn schedulers_say_which_part_it_is() {
        assert_eq!(scheduler(&[]), None);
        assert_eq!(
            scheduler(&[
                ("SLURM_ARRAY_TASK_ID", "5"),
                ("SLURM_ARRAY_TASK_MIN", "1"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "8"),
                ("SLURM_PROCID", "0"),
                ("SLURM_NTASKS", "1"),
            ]),
            Some(Part { index: 2, count: 8 })
        );
        let array = [("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
        let processes = [("SLURM_PROCID", "2"), ("SLURM_NTASKS", "4")];
        assert_eq!(scheduler(&array), Some(Part { index: 1, count: 3 }));
        assert_eq!(scheduler(&[array, processes].concat()), Some(Part { index: 6, count: 12 }));
        assert_eq!(
            scheduler(&[("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4")]),
            Some(Part { index: 3, count: 4 })
        );
        assert_eq!(
            scheduler(&[("JOB_COMPLETION_INDEX", "1"), ("JOB_COMPLETIONS", "2")]),
            Some(Part { index: 1, count: 2 })
        );
        assert_eq!(scheduler(&[("JOB_COMPLETION_INDEX", "1")]), None);
    }

    #[test]
    fn parts_share_out_all_shards_once() {
        for shard in 0..20 {
            let owners = (0..3).filter(|&index| Part::new(Some(index), Some(3)).unwrap().owns(shard)).count();
            assert_eq!(owners, 1);
        }
        assert!(Part::new(Some(3), Some(3)).is_err());
        assert!(Part::new(Some(3), None).is_err());
    }
}
