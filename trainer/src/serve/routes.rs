//! The requests of the page.
//!
//! ```text
//! GET  /, /page.css, /page.js    the page
//! GET  /model                    json: the model, limits, palette, initial classes, names of examples
//! GET  /examples/N               the N-th example image
//! POST /pictures                 an image file -> json: id, width, height, rows, columns, milliseconds
//! POST /scores                   json {picture, classes: ["cat|kitten", ..]} -> float32 [classes, rows, columns]
//! ```
//!
//! Errors are json {error}, with the HTTP status.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use loader::images::Format;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::ServeSettings;
use super::connections::{Allocation, Client, Supply};
use super::feature_store::FeatureStore;
use super::worker::{NoAnswer, Worker};
use crate::checkpoint::State as RunState;
use crate::inference::class_list::ClassList;
use crate::inference::class_vectors::ClassVectors;
use crate::inference::dense::DenseVision;
use crate::pictures::{self, colour};

/// Maximum memory of all request bodies, in uploads of the maximum size; one client can have half of it.
const UPLOADS: u64 = 8;
/// Maximum time of an upload.
const UPLOAD_TIME: Duration = Duration::from_mins(1);
/// Maximum time between two pieces of an upload.
const STALL_TIME: Duration = Duration::from_secs(10);
/// Maximum time until a response, including the time to wait for other requests.
const REQUEST_TIME: Duration = Duration::from_mins(5);
/// Maximum size of a request for scores, in bytes.
const MAX_QUERY: usize = 64 << 10;
/// Maximum size of a mask, in pixels.
const MAX_MASK: u64 = 4 << 20;
/// Maximum number of class names in a request, with all synonyms.
const MAX_NAMES: usize = 1024;
/// Maximum length of a class name in characters; the text tower truncates prompts to its context length.
const MAX_NAME: usize = 300;

/// The page loads nothing from other hosts and runs only its own script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The state that all requests share.
pub(super) struct App {
    vision: Worker<DenseVision>,
    words: Worker<FeatureStore>,
    /// Memory for request bodies, in bytes.
    bodies: Arc<Supply>,
    settings: ServeSettings,
    model: Value,
    /// Whether requests from other machines are allowed.
    open: bool,
}

impl App {
    pub(super) fn new(
        vision: Worker<DenseVision>,
        words: Worker<FeatureStore>,
        settings: ServeSettings,
        run: &RunState,
        by: ClassVectors,
        address: SocketAddr,
    ) -> Self {
        let name =
            |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size =
            if settings.segment.size == 0 { run.settings.data.loading.size } else { settings.segment.size };
        let model = json!({
            "name": name(&settings.checkpoint),
            "objective": run.settings.objective.name.to_string(),
            "step": run.step,
            "size": size,
            "vectors": by.name(),
            "templates": settings.segment.templates,
            "words": settings.words,
            "examples": settings.examples.iter().map(|path| name(path)).collect::<Vec<_>>(),
            "bytes": settings.limits.bytes,
            "palette": (0..256).map(|class| colour(class).0).collect::<Vec<_>>(),
            "ramp": (0..256).map(|step| pictures::ramp(step as f32 / 255.0).0).collect::<Vec<_>>(),
        });
        let open = !address.ip().is_loopback();
        let bodies = Supply::new(UPLOADS * settings.limits.bytes);
        Self { vision, words, bodies, settings, model, open }
    }
}

/// The routes, with the checks for all of them.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { page("text/html; charset=utf-8", include_str!("page.html")) }))
        .route("/page.css", get(|| async { page("text/css; charset=utf-8", include_str!("page.css")) }))
        .route("/page.js", get(|| async { page("text/javascript; charset=utf-8", include_str!("page.js")) }))
        .route("/model", get(|State(app): State<Arc<App>>| async move { Json(app.model.clone()) }))
        .route("/examples/{number}", get(example))
        .route("/pictures", post(upload))
        .route("/scores", post(scores))
        .route("/mask", post(mask))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

fn page(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// An error response.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<NoAnswer> for Refused {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Busy => {
                Self(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting; try again".to_owned())
            }
            NoAnswer::Failed => Self(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model failed; see the server's terminal".to_owned(),
            ),
        }
    }
}

/// Rejects requests with another host name if only this machine is allowed (DNS rebinding: another page could let its name point
/// here), rejects bodies that are too long, and sets the headers of every response.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let refused = |status, why: String| Refused(status, why).into_response();
    let most = if request.uri().path() == "/pictures" { app.settings.limits.bytes } else { MAX_QUERY as u64 };
    let mut response = if !app.open && !names_this_machine(request.headers()) {
        refused(StatusCode::FORBIDDEN, "open the page by the address that the server printed".to_owned())
    } else if announced(request.headers()).is_some_and(|length| length > most) {
        // Before the body is read.
        refused(StatusCode::PAYLOAD_TOO_LARGE, too_large(most))
    } else {
        match timeout(REQUEST_TIME, next.run(request)).await {
            Ok(response) => response,
            Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the request took too long".to_owned()),
        }
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The length of the body according to its header.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(most: u64) -> String {
    if most >= 1 << 20 {
        format!("the limit is {} MB", most >> 20)
    } else {
        format!("the limit is {most} bytes")
    }
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    ["localhost", "127.0.0.1", "[::1]"].contains(&name.map_or(host, |(name, _)| name))
}

async fn example(State(app): State<Arc<App>>, Path(number): Path<usize>) -> Result<Response, Refused> {
    let path = app.settings.examples.get(number);
    let path =
        path.ok_or_else(|| Refused(StatusCode::NOT_FOUND, "this example does not exist".to_owned()))?;
    let bytes = tokio::task::spawn_blocking({
        let path = path.clone();
        move || storage::read(&path)
    });
    match bytes.await {
        Ok(Ok(bytes)) => {
            let kind = Format::of(&bytes).map_or("application/octet-stream", Format::media_type);
            Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
        }
        _ => Err(Refused(StatusCode::NOT_FOUND, format!("cannot read {}", path.display()))),
    }
}

async fn upload(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let started = Instant::now();
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // This also protects against other web pages: for these types, a browser asks the server (CORS) before it sends them.
    if !kind.starts_with("image/") {
        let why =
            format!("the content type must be image/jpeg, image/png or another of an image, not {kind:?}");
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let mut memory = Allocation::nothing(&app.bodies, client);
    let bytes = body(request.into_body(), app.settings.limits.bytes, &mut memory).await?;
    let id: String = Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();

    let limits = app.settings.limits;
    // Decoded by the worker, so that the pixels of only one image are in memory at a time.
    let seen = app.vision.ask(move |vision| {
        let photo = pictures::photograph(&bytes, &limits)?;
        // Not earlier: the job stays in the queue when its client is gone.
        drop((bytes, memory));
        Ok::<_, String>((photo.dimensions(), vision.features(&photo)))
    });
    let ((width, height), features) = seen
        .await?
        .map_err(|why| Refused(StatusCode::UNPROCESSABLE_ENTITY, format!("this cannot be shown: {why}")))?;
    let (rows, columns) = (features.size()[0], features.size()[1]);
    let kept = id.clone();
    app.words.ask(move |held| held.keep(kept, features)).await?;
    Ok(Json(json!({
        "id": id,
        "width": width,
        "height": height,
        "rows": rows,
        "columns": columns,
        "milliseconds": started.elapsed().as_millis() as u64,
    })))
}

/// Reads a body of at most `most` bytes.
async fn body(body: Body, most: u64, memory: &mut Allocation) -> Result<Vec<u8>, Refused> {
    match timeout(UPLOAD_TIME, pieces(body, most, memory)).await {
        Ok(read) => read,
        Err(_) => Err(too_slow()),
    }
}

/// The same, without a limit of the whole time. Each piece takes its `memory` when it arrives, so that a slow client has no more
/// of it than it has sent, and cannot keep others waiting.
async fn pieces(mut body: Body, most: u64, memory: &mut Allocation) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    loop {
        let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Some(frame) = timeout(STALL_TIME, next).await.map_err(|_| too_slow())? else {
            return Ok(bytes);
        };
        let broken = |_| Refused(StatusCode::BAD_REQUEST, "the upload is incomplete".to_owned());
        // Trailers are ignored.
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        if (bytes.len() + piece.len()) as u64 > most {
            return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, too_large(most)));
        }
        if !memory.take(piece.len() as u64) {
            return Err(NoAnswer::Busy.into());
        }
        bytes.extend_from_slice(&piece);
    }
}

fn too_slow() -> Refused {
    Refused(StatusCode::REQUEST_TIMEOUT, "the upload took too long".to_owned())
}

#[derive(Deserialize)]
struct Question {
    picture: String,
    classes: Vec<String>,
}

async fn scores(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refused> {
    let mut memory = Allocation::nothing(&app.bodies, client);
    let question: Question = question(request, &mut memory).await?;
    let refuse = |why: String| Refused(StatusCode::BAD_REQUEST, why);
    let list = ClassList::new(question.classes.iter().map(String::as_str))
        .map_err(|problem| refuse(format!("the list of classes {problem}")))?;
    if let Some(long) = list.words.iter().find(|word| word.chars().count() > MAX_NAME) {
        let start: String = long.chars().take(20).collect();
        return Err(refuse(format!("\"{start}...\" is longer than {MAX_NAME} characters")));
    }
    if list.words.len() > MAX_NAMES {
        let names = list.words.len();
        return Err(refuse(format!(
            "the list of classes has {names} names, but at most {MAX_NAMES} are allowed"
        )));
    }
    // New names are embedded a few at a time, so that other requests come in between.
    let list = Arc::new(list);
    let failed = |why: crate::Error| refuse(why.to_string());
    loop {
        let some = Arc::clone(&list);
        if app.words.ask(move |held| held.words.embed_some(&some.words)).await?.map_err(failed)? == 0 {
            break;
        }
    }
    let scored = app.words.ask(move |held| held.scores(&question.picture, &list)).await?;
    let bytes = scored.map_err(failed)?.ok_or_else(gone)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

fn gone() -> Refused {
    Refused(StatusCode::GONE, "the features of this image are no longer stored; send it again".to_owned())
}

/// The content of a request, json.
async fn question<T: DeserializeOwned>(request: Request, memory: &mut Allocation) -> Result<T, Refused> {
    let (head, sent) = request.into_parts();
    let sent = body(sent, MAX_QUERY as u64, memory).await?;
    let question = Json::<T>::from_request(Request::from_parts(head, sent.into()), &()).await;
    question.map(|Json(question)| question).map_err(|why| Refused(why.status(), why.body_text()))
}

#[derive(Deserialize)]
struct Meaning {
    picture: String,
    expression: String,
    width: u32,
    height: u32,
}

async fn mask(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let mut memory = Allocation::nothing(&app.bodies, client);
    let Meaning { picture, expression, width, height } = question(request, &mut memory).await?;
    let refuse = |why: String| Refused(StatusCode::BAD_REQUEST, why);
    if expression.chars().count() > MAX_NAME {
        return Err(refuse(format!("the expression is longer than {MAX_NAME} characters")));
    }
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_MASK {
        return Err(refuse(format!("the mask is {width} x {height}; it must have 1 to {MAX_MASK} pixels")));
    }
    let found = app.words.ask(move |held| held.mask(&picture, &expression, width, height)).await?;
    Ok(Json(found.map_err(refuse)?.ok_or_else(gone)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            names_this_machine(&headers)
        };
        for host in ["localhost", "localhost:80", "127.0.0.1:8080", "[::1]:1", "[::1]"] {
            assert!(named(host), "{host}");
        }
        for host in ["example.org", "127.0.0.1.example.org:80", "localhost.example.org", "", "[::2]:1"] {
            assert!(!named(host), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }
}
