//! A local web page that segments an image into classes while the user types them.
//!
//! Two threads own the towers (`worker`): one computes the features of an image, once; the other embeds class names and compares
//! them with the stored features (`feature_store`). The page receives one similarity per class and patch and draws everything
//! itself, so that thresholds, toggles and the values under the pointer need no request. `routes` lists the requests,
//! `connections` limits what one client can use.

mod connections;
mod feature_store;
mod routes;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::inference::dense::DenseVision;
use crate::inference::segmenter::SegmentSettings;
use crate::inference::word_vectors::WordVectors;
use crate::observer::Observer;
use crate::pictures::Limits;
use feature_store::FeatureStore;
use routes::App;
use worker::Worker;

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Address and port; port 0 = any free port.
    pub address: SocketAddr,
    /// Run folder or checkpoint.
    pub checkpoint: PathBuf,
    /// Device, window and prompts.
    pub segment: SegmentSettings,
    /// Classes with which the page starts, separated by commas.
    pub words: String,
    /// Example images on the page.
    pub examples: Vec<PathBuf>,
    /// Limits for uploaded images.
    pub limits: Limits,
}

/// Maximum number of requests that wait for a tower; others get status 503.
const WAITING: usize = 512;
/// Time for current requests to finish when the server is stopped.
const GRACE: Duration = Duration::from_secs(3);

/// Serves the page until the observer says to stop. `ready` is called with the address when the server accepts requests.
pub fn serve(
    settings: &ServeSettings,
    observer: &dyn Observer,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    let checkpoint = Checkpoint::open(&settings.checkpoint)?;
    let (state, segment) = (checkpoint.state.clone(), settings.segment.clone());
    let vision = Worker::start("pictures", WAITING, {
        let (path, segment) = (settings.checkpoint.clone(), segment.clone());
        move || DenseVision::open(&Checkpoint::open(&path)?, &segment)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::Failed(format!("cannot start the threads of the server: {e}")))?;
    let cannot = |e: std::io::Error| {
        Error::Failed(format!("cannot listen on {}: {e}; choose another --address", settings.address))
    };
    runtime.block_on(async {
        let gone = || Error::Failed("a thread of the model has ended".to_owned());
        let width = vision.ask(|vision| vision.width()).await.map_err(|_| gone())?;
        let words = Worker::start("words", WAITING, move || {
            FeatureStore::new(WordVectors::open(&checkpoint, width, &segment)?)
        })?;
        let by = words.ask(|held| held.words.by()).await.map_err(|_| gone())?;
        let listener = tokio::net::TcpListener::bind(settings.address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let app = Arc::new(App::new(vision, words, settings.clone(), &state, by, address));
        ready(address);
        let limits = connections::Limits::default();
        tokio::select! {
            () = connections::serve(listener, routes::router(app), limits, interruption(observer)) => {}
            () = async { interruption(observer).await; tokio::time::sleep(GRACE).await } => {}
        }
        Ok::<_, Error>(())
    })?;
    runtime.shutdown_timeout(GRACE);
    Ok(())
}

/// Waits until the observer says to stop.
async fn interruption(observer: &dyn Observer) {
    while !observer.interrupted() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
