//! Which task reads which part of a table.

use std::sync::Arc;

use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion_distributed::{DistributedLeafExec, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse};

/// Gives each task of a stage its own part of a table of files; other sources are left as they are, and run in one task.
///
/// datafusion-distributed would do the same, but fails where small files do not make as many parts as there are partitions of tasks.
pub(super) fn parts_of_table(
    event: ScaleUpLeafNodeEvent<'_>,
) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    let scan = event.plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    let partitions = event.plan.output_partitioning().partition_count();
    let parts = divided(&scan.file_groups, partitions, event.task_count).into_iter().map(|groups| {
        let mut part = scan.clone();
        part.file_groups = groups;
        DataSourceExec::from_data_source(part) as _
    });
    let leaf = DistributedLeafExec::try_new(Arc::clone(event.plan), parts);
    Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
}

/// For each task as many groups of files, or of parts of files, as there are partitions; some may be empty.
fn divided(files: &[FileGroup], partitions: usize, tasks: usize) -> Vec<Vec<FileGroup>> {
    let wanted = partitions * tasks;
    // By size. Where that gives more, which it should not, or nothing, as for empty files, whole groups are dealt out.
    let groups = FileGroupPartitioner::new()
        .with_target_partitions(wanted)
        .with_repartition_file_min_size(0)
        .repartition_file_groups(files)
        .unwrap_or_else(|| files.to_vec());
    let mut dealt = vec![vec![Vec::new(); partitions]; tasks];
    for (number, group) in groups.into_iter().enumerate() {
        let place = number % wanted;
        dealt[place % tasks][place / tasks].extend(group.into_inner());
    }
    dealt.into_iter().map(|groups| groups.into_iter().map(FileGroup::new).collect()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::datasource::listing::PartitionedFile;

    use super::*;

    /// Every byte of every file is in exactly one part, and every task has the same number of groups.
    #[test]
    fn all_of_a_table_is_divided_among_tasks() {
        for sizes in [vec![0, 0], vec![9], vec![5000], vec![3, 1, 4, 1, 5], vec![50_000_000, 7, 20_000_000]] {
            let file = |(number, size): (usize, &u64)| PartitionedFile::new(number.to_string(), *size);
            let all: Vec<PartitionedFile> = sizes.iter().enumerate().map(file).collect();
            for (partitions, tasks) in [(1, 1), (1, 3), (2, 2), (4, 3), (16, 8)] {
                let files: Vec<FileGroup> =
                    all.iter().map(|file| FileGroup::new(vec![file.clone()])).collect();
                let divided = divided(&files, partitions, tasks);
                assert_eq!(divided.len(), tasks);
                let mut read: BTreeMap<String, u64> = BTreeMap::new();
                for groups in &divided {
                    assert_eq!(groups.len(), partitions, "{sizes:?}");
                    for part in groups.iter().flat_map(FileGroup::iter) {
                        *read.entry(part.object_meta.location.to_string()).or_default() +=
                            part.effective_size();
                    }
                }
                let whole = sizes.iter().enumerate().map(|(number, size)| (number.to_string(), *size));
                assert_eq!(read, whole.collect(), "{sizes:?} in {tasks} tasks of {partitions}");
            }
        }
    }
}
