//! Connections to workers. An error that comes from a worker, or from the network on the way to it, names it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::transport::Channel;
use url::Url;

use super::identity;
use crate::remote;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// How long a worker may take to accept a connection, and to say what it is.
const ANSWER: Duration = Duration::from_secs(10);

/// While rows are expected of a worker: how often it is asked for a sign of life, and how long it may take to give one. A
/// machine that lost its power, or its network, closes no connection.
const ASK: Duration = Duration::from_secs(10);
const ALIVE: Duration = Duration::from_mins(1);

/// The open connections, by worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Channels(Arc<Mutex<HashMap<Url, Channel>>>);

impl Channels {
    /// Asks a worker what it is; returns its number of threads.
    pub(super) async fn check(&self, worker: &Url, build: &str) -> Result<usize> {
        let place = place(worker);
        let silent = || external(format!("worker {place} does not answer within {} s", ANSWER.as_secs()));
        let ask = async {
            let mut client = create_worker_client(BoxCloneSyncChannel::new(self.open(worker).await?));
            client.get_worker_info(GetWorkerInfoRequest {}).await
        };
        let about = tokio::time::timeout(ANSWER, ask).await.map_err(|_| silent())?.map_err(|error| {
            match status(&error) {
                Some(status) => {
                    external(format!("{place} does not answer as a worker does: {}", status.message()))
                }
                None => error,
            }
        })?;
        match identity::parse(&about.version) {
            Some((other, threads)) if other == build => Ok(threads),
            _ => Err(external(format!(
                "worker {place} is another build of tools-sql ({}) than this one ({build}); run the same program \
                 everywhere",
                about.version.split(' ').next().unwrap_or_default(),
            ))),
        }
    }

    async fn open(&self, worker: &Url) -> Result<Channel> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(worker).cloned();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let endpoint = Channel::from_shared(worker.to_string())
            .map_err(|error| external(format!("{worker} is no address of a worker: {error}")))?
            .connect_timeout(ANSWER)
            .http2_keep_alive_interval(ASK)
            .keep_alive_timeout(ALIVE);
        let channel = endpoint.connect().await.map_err(|error| {
            let place = place(worker);
            external(format!(
                "worker {place} cannot be reached: {}; start it there with `tools sql --worker --listen ADDRESS:PORT`",
                cause(&error)
            ))
        })?;
        // A connection that breaks is opened again by the next request.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(worker.clone(), channel.clone());
        Ok(channel)
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        let inner = create_worker_client(BoxCloneSyncChannel::new(self.open(url).await?));
        Ok(Box::new(Named { place: place(url), inner }))
    }
}

/// A connection whose errors name the worker.
struct Named {
    place: String,
    inner: Box<dyn WorkerChannel>,
}

#[async_trait]
impl WorkerChannel for Named {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        let place = self.place.clone();
        let answers = self.inner.coordinator_channel(headers, request, messages, metrics, context).await;
        Ok(named(answers.map_err(|error| about(&self.place, &error))?, place))
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let streams = self.inner.execute_task(headers, request, metrics, context).await;
        let streams = streams.map_err(|error| about(&self.place, &error))?;
        Ok(streams.into_iter().map(|stream| named(stream, self.place.clone())).collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        self.inner.get_worker_info(request).await.map_err(|error| about(&self.place, &error))
    }
}

fn named<T: 'static>(stream: BoxStream<'static, Result<T>>, place: String) -> BoxStream<'static, Result<T>> {
    stream.map(move |item| item.map_err(|error| about(&place, &error))).boxed()
}

/// HOST:PORT.
fn place(worker: &Url) -> String {
    let host = worker.host_str().unwrap_or_default();
    format!("{host}:{}", worker.port_or_known_default().unwrap_or_default())
}

fn external(line: String) -> DataFusionError {
    DataFusionError::External(line.into())
}

/// An error as one of a worker's, unless it already says that it is.
fn about(place: &str, error: &DataFusionError) -> DataFusionError {
    if let Some(status) = status(error) {
        return external(format!(
            "worker {place} was lost before the query was done: {}; see what it printed, and query again",
            cause(status)
        ));
    }
    let line = match error.find_root() {
        DataFusionError::External(error) => error.to_string(),
        DataFusionError::ResourcesExhausted(_) => {
            "its part of the query needs more memory than it has; start it \
             with more --memory, or select fewer rows"
                .to_owned()
        }
        other => other.strip_backtrace(),
    };
    // What comes from another worker by way of this one.
    if line.starts_with("worker ") {
        return external(line);
    }
    // Below what libraries say about errors of files, what the file's error itself says.
    let line = line.rsplit(remote::FAILED).next().unwrap_or_default();
    external(format!("worker {place}: {line}"))
}

/// What gRPC itself says: an error of the connection, and not of the engine at its other end.
fn status(error: &DataFusionError) -> Option<&Status> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The first cause of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(earlier) = cause.source() {
        cause = earlier;
    }
    cause.to_string()
}
