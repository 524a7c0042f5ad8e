//! The worker: does tasks for coordinators until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{panic, process};

use anyhow::{Context, Error, Result, bail};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion_distributed::{DistributedExt, Worker, WorkerQueryContext};
use program::Outcome;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use url::Url;

use super::channels::Channels;
use super::{files, identity};
use crate::{remote, threads};

/// Interval of the checks for Ctrl-C.
const POLL: Duration = Duration::from_millis(50);

/// Serves at `address` until Ctrl-C or SIGTERM, within a memory limit in MB.
pub(crate) fn serve(address: SocketAddr, memory: u32) -> Result<Outcome> {
    end_with_a_panic();
    let pool = FairSpillPool::new((memory as usize) << 20);
    let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
    let channels = Channels::default();
    let worker = Worker::from_session_builder(move |query: WorkerQueryContext| {
        let (environment, channels) = (Arc::clone(&environment), channels.clone());
        async move { session(query, &environment, channels) }
    })
    .with_version(identity::of_worker()?);

    let runtime = threads::start()?;
    let (end, ended) = mpsc::channel();
    let cannot = || format!("cannot listen on {address}; choose another --listen");
    let incoming = {
        let _threads = runtime.enter();
        TcpIncoming::bind(address).with_context(cannot)?.with_nodelay(Some(true))
    };
    eprintln!(
        "worker: listening on {} with {memory} MB of memory",
        incoming.local_addr().with_context(cannot)?
    );
    runtime.spawn(async move {
        let server = Server::builder().add_service(worker.into_worker_server());
        let _ = end.send(server.serve_with_incoming(incoming).await);
    });
    while !program::interrupted() {
        match ended.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Err(error)) => return Err(Error::new(error).context("the worker cannot serve any more")),
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => bail!("the worker has ended unexpectedly"),
        }
    }
    // The threads work until the process has ended. Stopped one after the other, one could tell a coordinator that the rows of
    // another one are complete.
    std::mem::forget(runtime);
    Ok(Outcome::Done)
}

/// The session of a task: opens files by their names, and forgets them with the task.
fn session(
    query: WorkerQueryContext,
    environment: &RuntimeEnv,
    channels: Channels,
) -> Result<SessionState, DataFusionError> {
    let own = RuntimeEnvBuilder::from_runtime_env(environment)
        .with_object_store_registry(Arc::new(DefaultObjectStoreRegistry::new()))
        .build_arc()?;
    let url = Url::parse(remote::URL).map_err(|error| DataFusionError::External(error.into()))?;
    own.register_object_store(&url, files::files());
    Ok(query.builder.with_runtime_env(own).with_distributed_channel_resolver(channels).build())
}

/// Makes a panic in any thread end the process. A task that panics just stops sending rows, and whoever waits for them would take
/// those that it has for all.
fn end_with_a_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        print(about);
        eprintln!(
            "worker: ended by the error above; if a file of the query is damaged, `ingest verify` names it"
        );
        process::exit(1);
    }));
}
