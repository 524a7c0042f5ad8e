//! The network side: HTTP/2 and connection reuse, certificates, failing hosts, Prometheus metrics.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::{Server, code, command, errors, ingest, jpeg, respond, summary, table};

pub fn certificates(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// The side of a server that has the certificate of the tests, and offers these protocols.
pub fn tls(protocols: &[&[u8]]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(certificates("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates("server.key")).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    settings.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(settings))
}

/// Connections and requests that a server has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// A server that supports only HTTP/2 over TLS and answers every request with `content`.
fn http2_server(content: Vec<u8>) -> (u16, Arc<Seen>) {
    let acceptor = tls(&[b"h2"]);
    let seen = Arc::new(Seen::default());
    let counts = Arc::clone(&seen);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, counts, content) = (acceptor.clone(), Arc::clone(&counts), content.clone());
            tokio::spawn(async move {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut answer))) = connection.accept().await {
                    counts.requests.fetch_add(1, Ordering::Relaxed);
                    let head = http::Response::builder().status(200).body(()).unwrap();
                    let mut stream = answer.send_response(head, false).unwrap();
                    let _ = stream.send_data(content.clone().into(), true);
                }
            });
        }
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve);
    });
    (port, seen)
}

/// Downloads `urls` with `more` options; the output folder is `folder/out`.
fn download(folder: &Path, urls: &[String], more: &[&str]) -> Output {
    let (input, out) = (folder.join("urls.txt"), folder.join("out"));
    fs::write(&input, urls.join("\n")).unwrap();
    let _ = fs::remove_dir_all(&out);
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--allow-private", "--image-size", "16"]);
    if !more.contains(&"--retries") {
        arguments.extend(["--retries", "0"]);
    }
    arguments.extend(more);
    ingest(&arguments)
}

#[test]
fn http2_carries_many_requests_over_one_connection() {
    let (port, seen) = http2_server(jpeg(40, 30, 1));
    let urls: Vec<String> = (0..40).map(|number| format!("https://localhost:{port}/{number}")).collect();
    let folder = tempfile::tempdir().unwrap();
    let authority = certificates("authority.pem");
    let output = download(folder.path(), &urls, &["--ca-certificates", authority.to_str().unwrap()]);
    assert_eq!(summary(&output)["successes"], 40, "{}", errors(&output));
    assert_eq!(seen.requests.load(Ordering::Relaxed), 40);
    // Requests that start before the first handshake is complete open their own connections, which are closed afterwards.
    let connections = seen.connections.load(Ordering::Relaxed);
    assert!(connections <= 16, "{connections} connections");
}

#[test]
fn http1_connections_are_reused() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, image) = (Arc::clone(&connections), jpeg(40, 30, 1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let image = image.clone();
            thread::spawn(move || keep_answering(stream, &image));
        }
    });
    let urls: Vec<String> = (0..60).map(|number| format!("http://127.0.0.1:{port}/{number}")).collect();
    let folder = tempfile::tempdir().unwrap();
    let output = download(folder.path(), &urls, &["--per-host", "2"]);
    assert_eq!(summary(&output)["successes"], 60, "{}", errors(&output));
    let connections = connections.load(Ordering::Relaxed);
    // Two at a time; now and then a connection is not yet free when the next request needs one.
    assert!(connections <= 20, "{connections} connections for 60 requests");
}

/// Answers requests on one connection until it is closed.
fn keep_answering(mut stream: TcpStream, content: &[u8]) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content)).is_err() {
                return;
            }
        }
        line.clear();
    }
}

#[test]
fn an_untrusted_certificate_and_a_server_without_tls_fail_with_a_tls_error() {
    let (port, seen) = http2_server(jpeg(40, 30, 1));
    // Answers every connection in plain HTTP.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = [format!("https://localhost:{port}/x"), format!("https://127.0.0.1:{plain_port}/x")];
    let output = download(folder.path(), &urls, &[]);
    assert_eq!(summary(&output)["causes"]["TLS handshake failed"], 2, "{}", errors(&output));
    assert_eq!(seen.requests.load(Ordering::Relaxed), 0);
    let key = certificates("server.key");
    let output = download(folder.path(), &urls, &["--ca-certificates", key.to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    assert!(errors(&output).contains("server.key: has no PEM certificates"), "{}", errors(&output));
}

#[test]
fn a_host_that_never_answers_gets_few_requests() {
    let image = jpeg(40, 30, 1);
    let server = Server::start(move |_, _, stream| respond(stream, "200 OK", &[], &image));
    // 127.0.0.2 is another host, on which no server listens.
    let mut urls: Vec<String> = (0..300).map(|number| format!("http://127.0.0.2:9/{number}")).collect();
    urls.extend((0..20).map(|number| server.url(&format!("/{number}"))));
    let folder = tempfile::tempdir().unwrap();
    let output = download(folder.path(), &urls, &["--retries", "2", "--backoff", "0.01"]);
    let summary = summary(&output);
    assert_eq!(
        (summary["samples"].clone(), summary["successes"].clone()),
        (320.into(), 20.into()),
        "{summary}"
    );
    let refused = summary["causes"]["connection refused"].as_u64().unwrap();
    let not_asked = summary["causes"]["host skipped after repeated failures"].as_u64().unwrap();
    assert_eq!(refused + not_asked, 300, "{summary}");
    // 20 in a row, and those that were in flight by then: at most 4 at a time to a host that has not answered.
    assert!((20..=24).contains(&refused), "{refused} requests were refused");
    assert!(
        errors(&output).contains("1 host skipped after repeated failures (127.0.0.2)"),
        "{}",
        errors(&output)
    );
    let rows = table(&folder.path().join("out/00000.parquet"));
    assert!(rows[300..].iter().all(|row| row["status"] == "success"), "other hosts are not affected");
}

#[test]
fn the_minimum_speed_ends_slow_responses_and_keeps_others() {
    // Both take some seconds and never pause for long: 40 bytes per second, and 20,000.
    let trickle = |stream: &mut TcpStream, piece: &[u8], pieces: usize| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            piece.len() * pieces
        );
        let mut alive = stream.write_all(head.as_bytes()).is_ok();
        for _ in 0..pieces {
            alive = alive && stream.write_all(piece).is_ok();
            if !alive {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    };
    let server = Server::start(move |path, _, stream| match path {
        "/slow" => trickle(stream, b"slow", 1000),
        _ => trickle(stream, &[7; 2000], 20),
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = [server.url("/slow"), server.url("/steady")];
    let output =
        download(folder.path(), &urls, &["--timeout", "1", "--min-speed", "1000", "--deadline", "60"]);
    let causes = summary(&output)["causes"].clone();
    assert_eq!(causes["timed out: response slower than --min-speed"], 1, "{causes}");
    assert_eq!(causes["Image decoding error: not an image"], 1, "the response arrived: {causes}");
}

#[test]
fn prometheus_metrics_are_served_during_the_run() {
    let image = jpeg(40, 30, 1);
    let length = image.len();
    let server = Server::start(move |path, _, stream| match path {
        "/slow" => thread::sleep(Duration::from_secs(30)),
        "/missing" => respond(stream, "404 Not Found", &[], b""),
        _ => respond(stream, "200 OK", &[], &image),
    });
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("urls.txt");
    let urls = ["/1", "/2", "/missing", "/slow"].map(|path| server.url(path));
    fs::write(&input, urls.join("\n")).unwrap();
    let out = folder.path().join("out");
    let arguments = ["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--allow-private"];
    let mut child = command(&[&arguments[..], &["--metrics", "127.0.0.1:0", "--timeout", "30"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("metrics at"))).unwrap().unwrap();
    let address = line.trim_start_matches("metrics at http://").trim_end_matches("/metrics").to_owned();
    // Callers that send their requests slowly or not at all do not block others.
    let _slow: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
        })
        .collect();
    let page = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        // Shorter than the time that a slow caller has.
        stream.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let expected = [
        "HTTP/1.1 200 OK".to_owned(),
        "ingest_samples_total{status=\"success\"} 2\n".to_owned(),
        "ingest_failures_total{cause=\"HTTP Error 404: Not Found\"} 1\n".to_owned(),
        format!("ingest_received_bytes_total {}\n", 2 * length),
        "ingest_attempts_total 4\n".to_owned(),
        "ingest_in_flight 1\n".to_owned(),
        "# TYPE ingest_samples_total counter\n".to_owned(),
    ];
    let mut text = page();
    for _ in 0..100 {
        if expected.iter().all(|part| text.contains(part)) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        text = page();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for part in expected {
        assert!(text.contains(&part), "no {part:?} in\n{text}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let refused = ingest(&[&arguments[..], &["--metrics", &taken]].concat());
    assert_eq!(code(&refused), 2);
    assert!(errors(&refused).contains(&taken), "{}", errors(&refused));
}

/// A proxy is contacted wherever it is, and asked only for what may be contacted without it.
#[test]
fn a_proxy_gives_no_access_to_private_addresses() {
    let image = jpeg(40, 30, 1);
    let proxy = Server::start(move |_, _, stream| respond(stream, "200 OK", &[], &image));
    let own = format!("http://127.0.0.1:{}/own", proxy.port);
    let public = "http://9.9.9.9/image.jpg";
    let mut urls =
        vec![own.as_str(), "http://127.0.0.1:9200/admin", "http://localhost:9200/admin", "http://[::1]/"];
    urls.extend(["http://169.254.169.254/latest", "http://db/", "http://printer.local/", public]);
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("urls.txt"), folder.path().join("out"));
    fs::write(&input, urls.join("\n")).unwrap();
    for (number, host) in ["127.0.0.1", "localhost"].into_iter().enumerate() {
        let _ = fs::remove_dir_all(&out);
        let address = format!("http://{host}:{}", proxy.port);
        let output = ingest(&[
            "download",
            input.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--retries",
            "0",
            "--image-size",
            "16",
            "--json",
            "--proxy",
            &address,
        ]);
        assert_eq!(summary(&output)["successes"], 1, "{}", errors(&output));
        for url in &urls {
            let asked = if *url == public { number + 1 } else { 0 };
            assert_eq!(proxy.count(url), asked, "{url} through {address}");
        }
    }
}
