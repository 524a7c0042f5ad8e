//! Answers that web browsers and curl accept although they break the rules of HTTP, `data:` URLs, and URLs with passwords.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Server, errors, ingest, jpeg, respond, summary, table};
use crate::network::{certificates, tls};

/// Downloads `urls`; the successes and the causes of failure.
fn download(folder: &Path, urls: &[String], more: &[&str]) -> (u64, String) {
    let (input, out) = (folder.join("urls.txt"), folder.join("out"));
    fs::write(&input, urls.join("\n")).unwrap();
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--allow-private", "--image-size", "16", "--retries", "0", "--max-failures", "100%"]);
    arguments.extend(more);
    let output = ingest(&arguments);
    (summary(&output)["successes"].as_u64().unwrap_or_default(), errors(&output))
}

/// A response with these lines between the status and the image.
fn answer(stream: &mut TcpStream, lines: &[u8], body: &[u8]) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n");
    let _ = stream.write_all(lines);
    let _ = stream.write_all(b"\r\n\r\n");
    let _ = stream.write_all(body);
}

#[test]
fn an_encoding_that_is_only_claimed_does_not_matter() {
    let claims = ["aws-chunked", "", "none", "binary", "UTF-8", "Identity", "gzip", "br"];
    let server = Server::start(move |path, _, stream| {
        let claim = path.trim_start_matches('/').parse().ok().and_then(|at: usize| claims.get(at));
        match claim {
            Some(claim) => {
                respond(stream, "200 OK", &[&format!("Content-Encoding: {claim}")], &jpeg(40, 30, 1));
            }
            // Really compressed: the first bytes of a gzip file (RFC 1952).
            None => {
                respond(stream, "200 OK", &["Content-Encoding: gzip"], b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
            }
        }
    });
    let urls: Vec<String> = (0..=claims.len()).map(|at| server.url(&format!("/{at}"))).collect();
    let folder = tempfile::tempdir().unwrap();
    let (successes, errors) = download(folder.path(), &urls, &[]);
    assert_eq!(successes, claims.len() as u64, "{errors}");
    assert!(errors.contains("1  unexpected content encoding"), "{errors}");
}

#[test]
fn headers_that_break_the_rules_are_passed_over() {
    let image = jpeg(40, 30, 1);
    let lines: [Vec<u8>; 5] = [
        format!("Content-Length : {}", image.len()).into_bytes(),
        b"<br />\r\n<b>Warning</b>:  Undefined variable in <b>/var/www/image.php</b> on line <b>3</b><br />"
            .to_vec(),
        b"X-Note: one\r\n two\r\n\tthree".to_vec(),
        b"X-Note: a\x01b\x7f".to_vec(),
        b"X-Name: caf\xe9".to_vec(),
    ];
    let count = lines.len();
    let server = Server::start(move |path, _, stream| {
        let at: usize = path.trim_start_matches('/').parse().unwrap();
        answer(stream, &lines[at], &image);
    });
    let urls: Vec<String> = (0..count).map(|at| server.url(&format!("/{at}"))).collect();
    let folder = tempfile::tempdir().unwrap();
    let (successes, errors) = download(folder.path(), &urls, &[]);
    assert_eq!(successes, count as u64, "{errors}");
}

#[test]
fn a_redirect_may_have_bytes_of_latin_1() {
    let server = Server::start(|path, _, stream| {
        if path == "/start" {
            let _ = stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9.jpg\r\nContent-Length: 0\r\n\r\n");
        } else {
            respond(stream, "200 OK", &[], &jpeg(40, 30, 1));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (successes, errors) = download(folder.path(), &[server.url("/start")], &[]);
    assert_eq!((successes, server.count("/caf%E9.jpg")), (1, 1), "{errors}");
}

/// A TLS server that sends `head` and an image and then drops the connection without the alert that ends TLS.
fn impolite_server(head: &'static str, image: Vec<u8>) -> u16 {
    let acceptor = tls(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&image).await;
            let _ = stream.flush().await;
        }
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve);
    });
    port
}

#[test]
fn the_end_of_a_connection_is_the_end_of_an_image_without_a_length() {
    let image = jpeg(40, 30, 1);
    let authority = certificates("authority.pem");
    let fetched = |head: &'static str, image: &[u8]| {
        let url = format!("https://localhost:{}/a.jpg", impolite_server(head, image.to_vec()));
        let folder = tempfile::tempdir().unwrap();
        download(folder.path(), &[url], &["--ca-certificates", authority.to_str().unwrap()])
    };
    let (successes, errors) = fetched("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &image);
    assert_eq!(successes, 1, "{errors}");
    // A truncated image is refused, and so is the end before a length that was declared.
    let (successes, errors) =
        fetched("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &image[..image.len() / 2]);
    assert!(successes == 0 && errors.contains("the file is truncated"), "{errors}");
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ] {
        let (successes, errors) = fetched(head, &image);
        assert!(successes == 0 && errors.contains("connection broken"), "{errors}");
    }
}

#[test]
fn data_urls_are_images_without_a_server() {
    // The smallest GIF, of one white pixel.
    let gif = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=";
    let folder = tempfile::tempdir().unwrap();
    let (successes, errors) =
        download(folder.path(), &[gif.to_owned(), "data:image/gif;base64,?".to_owned()], &[]);
    assert_eq!(successes, 1, "{errors}");
    assert!(errors.contains("1  not a valid data URL"), "{errors}");
    assert_eq!(table(&folder.path().join("out/00000.parquet"))[0]["url"], gif);
}

#[test]
fn passwords_are_used_but_not_stored() {
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(40, 30, 1)));
    let url = server.url("/a.jpg");
    let secret = url.replace("http://", "http://me:secret@");
    let folder = tempfile::tempdir().unwrap();
    let (successes, errors) = download(folder.path(), &[secret], &[]);
    assert_eq!(successes, 1, "{errors}");
    assert_eq!(table(&folder.path().join("out/00000.parquet"))[0]["url"], url);
    for entry in fs::read_dir(folder.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|part| part == b"secret"), "{}", path.display());
        }
    }
}
