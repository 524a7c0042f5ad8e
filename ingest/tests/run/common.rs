//! A web server that misbehaves on demand, test images, and the program under test.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;

/// A JPEG that depends on its size and `seed` alone.
pub fn jpeg(width: u32, height: u32, seed: u32) -> Vec<u8> {
    encoded(&gradient(width, height, seed), ImageFormat::Jpeg)
}

pub fn gradient(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 3 + seed * 40) as u8, (y * 2 + seed * 11) as u8, (u32::midpoint(x, y) + seed * 7) as u8])
    })
}

pub fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A running server that counts the requests per path.
pub struct Server {
    host: &'static str,
    pub port: u16,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    /// Answers each request with `answer(path, number of earlier requests for it, connection)`.
    pub fn start(answer: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// The same at another address of this machine, which counts as another host.
    pub fn start_at(
        host: &'static str,
        answer: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&counts), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &seen, answer.as_ref()));
            }
        });
        Self { host, port, counts }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.port)
    }

    /// Number of requests for all paths.
    pub fn requests(&self) -> usize {
        self.counts.lock().unwrap().values().sum()
    }

    pub fn count(&self, path: &str) -> usize {
        self.counts.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<HashMap<String, usize>>,
    answer: &(dyn Fn(&str, usize, &mut TcpStream) + Send + Sync),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    // A TLS handshake is not text.
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return };
    while line.trim() != "" {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
    }
    let before = {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    answer(&path, before, &mut stream);
}

/// A server of images. What fails differs between any two requests, so that a shard of two processes would not fit together.
pub fn unreliable_server() -> Server {
    let number = AtomicUsize::new(0);
    Server::start(move |path, _, stream| {
        let asked = number.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis((asked * 7 % 20) as u64));
        if asked * 11 % 10 < 3 {
            respond(stream, "404 Not Found", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(40 + path.len() as u32, 30, 1));
        }
    })
}

/// Sends a complete response and closes the connection.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(b"\r\n"))
        .and_then(|()| stream.write_all(body));
}

/// Sends a response without a length in small pieces, until the client closes the connection.
pub fn trickle(stream: &mut TcpStream, piece: &[u8], every: Duration) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    while stream.write_all(piece).is_ok() {
        thread::sleep(every);
    }
}

/// Runs the program.
pub fn ingest(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest"));
    command.args(arguments);
    // The tests themselves may run in a job of a scheduler.
    for name in ["SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "JOB_COMPLETION_INDEX"] {
        command.env_remove(name);
    }
    command
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON summary: the last line of standard output.
pub fn summary(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_else(|| panic!("no summary; errors: {}", errors(output)));
    serde_json::from_str(line).unwrap()
}

/// The error line; there must be exactly one.
pub fn error_line(output: &Output) -> String {
    let text = errors(output);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {text}");
    lines[0].to_owned()
}

/// The files of a folder with their contents, without what differs between runs: the times in the statistics and in the tables of
/// downloads (`fetched`), and the checksums of these tables.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = fs::read(&path).unwrap();
        // The temporary file of a killed writer may hold a part of them.
        if name.ends_with("_stats.json") && !name.contains(".tmp-") {
            let mut stats: Value = serde_json::from_slice(&bytes).unwrap();
            for time in ["duration", "start_time", "end_time"] {
                assert!(stats.as_object_mut().unwrap().remove(time).is_some());
            }
            bytes = stats.to_string().into_bytes();
        }
        files.insert(name, bytes);
    }
    let tables: Vec<String> = files.keys().filter(|name| name.ends_with(".parquet")).cloned().collect();
    for name in tables {
        let Some(mut rows) = read_table(&folder.join(&name)) else { continue };
        let times = rows.iter_mut().filter_map(|row| row.remove("fetched")).count();
        if times == 0 {
            continue;
        }
        files.insert(name.clone(), format!("{rows:#?}").into_bytes());
        if let Some(sums) = files.get_mut(&name.replace(".parquet", ".sha256")) {
            let text = String::from_utf8(sums.clone()).unwrap();
            let others = text.lines().filter(|line| !line.ends_with(&format!("  {name}")));
            *sums = others.map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        }
    }
    files
}

/// Names and bytes of a tar's members, in order.
pub fn members(tar: &Path) -> Vec<(String, Vec<u8>)> {
    use std::io::Read;
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
        })
        .collect()
}

/// The rows of a shard's table: values as text, by column.
pub fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    read_table(path).unwrap_or_else(|| panic!("{} is no table", path.display()))
}

/// The same; `None` for a file that is no complete table.
fn read_table(path: &Path) -> Option<Vec<BTreeMap<String, String>>> {
    use arrow_array::Array;
    let file = fs::File::open(path).unwrap();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).ok()?.build().ok()?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.ok()?;
        for row in 0..batch.num_rows() {
            let mut values = BTreeMap::new();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                if column.is_valid(row) {
                    let text = arrow_cast::display::array_value_to_string(column, row).unwrap();
                    values.insert(field.name().clone(), text);
                }
            }
            rows.push(values);
        }
    }
    Some(rows)
}
