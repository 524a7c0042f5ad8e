//! Which shards one of several parallel jobs makes: `--index I --count N`, or the scheduler's environment variables.

use crate::error::Error;

/// Job `index` of `count`: makes the shards whose number modulo `count` is `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// All shards.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// From the options; without them from the job array or job step that the process belongs to.
    pub fn new(index: Option<u32>, count: Option<u32>) -> Result<Self, Error> {
        let part = match (index, count) {
            (Some(index), Some(count)) => Self { index, count },
            (None, None) => Self::of_scheduler(|name| std::env::var(name).ok()).unwrap_or(Self::ALL),
            _ => return Err(Error::Usage("--index and --count must be given together".to_owned())),
        };
        if part.index >= part.count {
            let Self { index, count } = part;
            return Err(Error::Usage(format!(
                "--index {index} --count {count}: the index must be from 0 to count - 1"
            )));
        }
        Ok(part)
    }

    /// From SLURM job arrays (whose first index may be any), SLURM tasks, or Kubernetes Indexed Jobs (whose manifest must
    /// pass on the number of completions as JOB_COMPLETIONS).
    fn of_scheduler(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.parse::<u32>().ok();
        let processes = number("SLURM_PROCID").zip(number("SLURM_NTASKS"));
        if let (Some(id), Some(count)) = (number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_COUNT")) {
            let first = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
            let index = id.saturating_sub(first) / step;
            // A task of an array may itself consist of several processes.
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

    /// Whether this job makes the shard.
    pub fn owns(self, shard: u32) -> bool {
        shard % self.count == self.index
    }

    /// Index and number of jobs, if there are several.
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
    fn schedulers_set_the_part() {
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
    fn every_shard_belongs_to_exactly_one_part() {
        for shard in 0..20 {
            let owners = (0..3).filter(|&index| Part::new(Some(index), Some(3)).unwrap().owns(shard)).count();
            assert_eq!(owners, 1);
        }
        assert!(Part::new(Some(3), Some(3)).is_err());
        assert!(Part::new(Some(3), None).is_err());
    }
}
