//! A web page on this machine: pictures in, segments out as words are typed.
//!
//! Two threads own the towers ([`worker`]): one computes a picture's features, once; the other embeds words and
//! compares them with the features it holds ([`held`]). The page gets similarities a patch and draws them itself, so
//! that thresholds, toggles and values under the pointer need no request ([`routes`] lists what it asks for).

mod held;
mod routes;
mod worker;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loader::program::interrupted;

use crate::checkpoint::Checkpoint;
use crate::dense::DenseVision;
use crate::error::{Error, Result};
use crate::picture::Limits;
use crate::segmenter::SegmentSettings;
use crate::words::WordVectors;
use held::Held;
use routes::App;
use worker::Worker;

/// What the page is told.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Run or checkpoint.
    pub checkpoint: PathBuf,
    /// Device, sizes and wording.
    pub segment: SegmentSettings,
    /// Words that the page starts with.
    pub words: String,
    /// Pictures that the page offers.
    pub examples: Vec<PathBuf>,
    /// What is refused of pictures that are sent.
    pub limits: Limits,
}

/// Requests that wait for a tower before others are told to come back.
const WAITING: usize = 512;
/// How long requests in hand may take once the server is to end.
const GRACE: Duration = Duration::from_secs(3);

/// Serves the page until Ctrl-C; `ready` is told the address once requests are answered.
pub fn serve(settings: &ServeSettings, ready: impl FnOnce(SocketAddr)) -> Result<()> {
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
        .map_err(|e| Error::Setting { name: "threads".to_owned(), problem: e.to_string() })?;
    let cannot = |e: std::io::Error| Error::Setting {
        name: "address".to_owned(),
        problem: format!("cannot listen on {}: {e}; choose another with --address", settings.address),
    };
    runtime.block_on(async {
        let gone =
            || Error::Setting { name: "pictures".to_owned(), problem: "its thread has ended".to_owned() };
        let width = vision.ask(|vision| vision.width()).await.map_err(|_| gone())?;
        let words = Worker::start("words", WAITING, move || {
            Ok(Held::new(WordVectors::open(&checkpoint, width, &segment)?))
        })?;
        let by = words.ask(|held| held.words.by()).await.map_err(|_| gone())?;
        let listener = tokio::net::TcpListener::bind(settings.address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let app = Arc::new(App::new(vision, words, settings.clone(), &state, by, address));
        ready(address);
        let server = axum::serve(listener, routes::router(app)).with_graceful_shutdown(interruption());
        tokio::select! {
            ended = server.into_future() => ended.map_err(cannot),
            () = async { interruption().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    })?;
    runtime.shutdown_timeout(GRACE);
    Ok(())
}

/// Ctrl-C.
async fn interruption() {
    while !interrupted() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
