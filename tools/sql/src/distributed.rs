//! A query on several machines. The crate datafusion-distributed cuts the engine's plan into stages, and each stage into
//! tasks; workers (`tools sql --worker`) do the tasks and pass rows to each other, and this process, their coordinator, gets
//! the last rows. What is here: which workers there are and whether they are the same program ([`Workers`]), connections whose
//! errors name the worker ([`channels`]), which part of a table is whose ([`tasks`]), and the worker itself ([`worker`]).

mod channels;
mod files;
mod identity;
mod tasks;
mod worker;

use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{DistributedExt, SessionStateBuilderExt, WorkerResolver};
use futures_util::future::try_join_all;
use program::UsageError;
use url::Url;

pub(crate) use self::files::{files, name};
pub(crate) use self::worker::serve;

/// The workers of a query.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Vec<Url>);

/// Marks the settings of a query that workers do.
struct ByWorkers;

impl Workers {
    /// Workers at these addresses, HOST:PORT of each; `None` without any.
    ///
    /// # Errors
    /// [`UsageError`] for what is not an address, or for a single one: a plan is not cut where there is nothing to share.
    pub(crate) fn new(addresses: &[String]) -> Result<Option<Self>> {
        let url = |address: &String| {
            let url = Url::parse(&format!("http://{address}")).ok();
            let plain = |url: &Url| {
                // The port 80 is the one that a URL leaves out.
                let end = url.port_or_known_default().map(|port| format!(":{port}"));
                url.path() == "/"
                    && url.username().is_empty()
                    && end.is_some_and(|end| address.ends_with(&end))
            };
            url.filter(plain).ok_or_else(|| {
                UsageError(format!("--workers: {address} is not HOST:PORT, the address of a worker")).into()
            })
        };
        let workers = addresses.iter().map(url).collect::<Result<Vec<Url>>>()?;
        if workers.len() == 1 {
            let line =
                "--workers: name at least two, which share the work; without --workers, this process does it";
            return Err(UsageError(line.to_owned()).into());
        }
        Ok((!workers.is_empty()).then_some(Self(workers)))
    }

    /// The state of a session whose queries these workers do, from that of one that does them itself.
    ///
    /// # Errors
    /// A worker cannot be reached, or is another program than this one.
    pub(crate) async fn take_over(self, state: SessionState) -> Result<SessionState, DataFusionError> {
        let channels = channels::Channels::default();
        let build = identity::this_program()?;
        let threads = try_join_all(self.0.iter().map(|worker| channels.check(worker, &build))).await?;
        let mut builder = SessionStateBuilder::new_from_existing(state);
        let config = builder.config().get_or_insert_default();
        config.set_extension(Arc::new(ByWorkers));
        // A task has as many partitions as the largest worker has threads.
        config.options_mut().execution.target_partitions = threads.into_iter().max().unwrap_or(1);
        Ok(builder
            .with_distributed_worker_resolver(self)
            .with_distributed_channel_resolver(channels)
            .with_distributed_planner()
            .with_distributed_scale_up_leaf_node_handler(tasks::parts_of_table)
            // However little there is to read: whoever names workers wants them to do it.
            .with_distributed_file_scan_config_bytes_per_partition(1)?
            .build())
    }
}

impl WorkerResolver for Workers {
    fn get_urls(&self) -> Result<Vec<Url>, DataFusionError> {
        Ok(self.0.clone())
    }
}

/// Whether workers read the files of a query.
pub(crate) fn is_used(config: &SessionConfig) -> bool {
    config.get_extension::<ByWorkers>().is_some()
}

/// A temporary file for the rows of a query, which may fail until the last one has come.
pub(crate) fn spool() -> Result<std::fs::File> {
    tempfile::tempfile().with_context(|| {
        format!("cannot keep rows in the folder of temporary files, {}", std::env::temp_dir().display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_workers_are_hosts_with_ports() {
        let workers =
            |list: &[&str]| Workers::new(&list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert!(workers(&[]).unwrap().is_none());
        let some = workers(&["127.0.0.1:7900", "node-1:80", "[::1]:7900", "node.example.org:7900"]);
        assert_eq!(some.unwrap().unwrap().0.len(), 4);
        assert!(workers(&["node:7900"]).unwrap_err().to_string().contains("at least two"));
        for wrong in
            ["node", "node:", "node:seven", ":7900", "http://node:7900", "node:7900/x", "me@node:7900", ""]
        {
            let error = workers(&[wrong]).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains("HOST:PORT"), "{wrong}: {error}");
        }
    }
}
