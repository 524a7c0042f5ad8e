//! `trainer serve` with a browser, with many requests at once, and with hostile requests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::{program, summary, text};
use tiny::trained;

mod tiny;

/// The running server. It is killed on drop.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(run: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(program("trainer"))
            .args(["serve", "--checkpoint", text(run), "--address", "127.0.0.1:0", "--threads", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    /// Sends raw bytes; returns status and body of the response.
    fn raw(&self, request: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // The server may reject the request and close the connection before everything is sent.
        let _ = stream.write_all(request);
        answer(stream)
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    /// Uploads an image, which must be accepted.
    fn send(&self, picture: &[u8]) -> Value {
        let (status, body) = self.ask("POST", "/pictures", "image/jpeg", picture);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// The scores of each class; the request must succeed.
    fn scores(&self, picture: &Value, classes: &[&str]) -> Vec<Vec<f32>> {
        let question = json!({"picture": picture["id"], "classes": classes}).to_string();
        let (status, body) = self.ask("POST", "/scores", "application/json", question.as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let values: Vec<f32> = body.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let patches = (picture["rows"].as_u64().unwrap() * picture["columns"].as_u64().unwrap()) as usize;
        assert_eq!(values.len(), patches * classes.len());
        values.chunks(patches).map(<[f32]>::to_vec).collect()
    }

    /// Sends SIGINT, as Ctrl-C does; returns the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> (u16, Vec<u8>) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let status = String::from_utf8_lossy(&bytes[..head]).split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or(0), bytes.get(head + 4..).unwrap_or_default().to_vec())
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn refusal((status, body): (u16, Vec<u8>)) -> (u16, String) {
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, told["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn hostile_requests_are_rejected_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let mut server = Server::start(&run, &["--max-mb", "2"]);
    let picture = |kind: &str, bytes: &[u8]| refusal(server.ask("POST", "/pictures", kind, bytes));
    let photo = RgbImage::from_fn(160, 120, |x, y| Rgb([x as u8, y as u8, 90]));
    let (jpeg, png) = (encoded(&photo, ImageFormat::Jpeg), encoded(&photo, ImageFormat::Png));

    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    // A file below 1 MiB with 81 million pixels.
    let mut flat = std::io::Cursor::new(Vec::new());
    GrayImage::new(9_000, 9_000).write_to(&mut flat, ImageFormat::Png).unwrap();
    let flat = flat.into_inner();
    assert!(flat.len() < 1 << 20);
    let narrow = encoded(&RgbImage::new(900, 3), ImageFormat::Png);
    for (bytes, part) in [
        (&b""[..], "0 bytes"),
        (b"<html>hello</html>", "a web page"),
        (&jpeg[..jpeg.len() / 2], "truncated"),
        (&png[..png.len() / 2], "cannot be shown"),
        (&bomb, "cannot be shown"),
        (&flat, "9000 x 9000 pixels, 81 million"),
        (&narrow, "too narrow"),
    ] {
        let (status, why) = picture("image/png", bytes);
        assert!(status == 422 && why.contains(part), "{part}: {status} {why}");
    }
    let (status, why) = picture("text/plain", &jpeg);
    assert!(status == 415 && why.contains("text/plain"), "{status} {why}");

    // A request body of 1 GiB is rejected because of its Content-Length, before any of it is sent ...
    let head = |length: &str| {
        format!(
            "POST /pictures HTTP/1.1\r\nHost: {}\r\nContent-Type: image/png\r\n{length}\r\n\r\n",
            server.address
        )
    };
    let announced = head("Content-Length: 1073741824\r\nExpect: 100-continue\r\nConnection: close");
    let (status, why) = refusal(server.raw(announced.as_bytes()));
    assert!(status == 413 && why.contains("2 MB"), "{status} {why}");
    // ... and one of unknown length as soon as it is too long.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(head("Transfer-Encoding: chunked\r\nConnection: close").as_bytes()).unwrap();
    let chunk = [&b"10000\r\n"[..], &vec![7; 1 << 16], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 1 << 30 && stream.write_all(&chunk).is_ok() {
        sent += 1 << 16;
    }
    assert!(sent < 64 << 20, "{sent} bytes were accepted");

    let question = |body: &str| refusal(server.ask("POST", "/scores", "application/json", body.as_bytes()));
    assert_eq!(question("{\"picture\": \"00\", \"classes\": [\"cat\"]}").0, 410);
    assert_eq!(question("{\"picture\": \"00\", \"classes\": []}").0, 400);
    let (status, why) = question(&json!({"picture": "00", "classes": ["long".repeat(200)]}).to_string());
    assert!(status == 400 && why.contains("characters"), "{status} {why}");
    assert_eq!(question("{").0, 400);
    let many: Vec<String> = (0..255).map(|class| format!("a{class}|b{class}|c{class}|d{class}|e")).collect();
    let (status, why) = question(&json!({"picture": "00", "classes": many}).to_string());
    assert!(status == 400 && why.contains("1275 names"), "{status} {why}");
    let long = head("Content-Length: 1048576\r\nExpect: 100-continue\r\nConnection: close");
    let long = long.replace("/pictures", "/scores").replace("image/png", "application/json");
    assert_eq!(server.raw(long.as_bytes()).0, 413);
    let other = "GET /model HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(other.as_bytes()).0, 403, "a foreign host name that resolves to this machine");

    // The server still works, and stops at Ctrl-C.
    let told = server.send(&jpeg);
    assert_eq!(
        (&told["width"], &told["height"], &told["rows"], &told["columns"]),
        (&json!(160), &json!(120), &json!(14), &json!(19))
    );
    assert_eq!(server.interrupt(), Some(0));
}

/// Uploads that have begun but do not go on take no place from others.
#[test]
fn slow_uploads_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let server = Server::start(&run, &[]);
    let photo = RgbImage::from_fn(160, 120, |x, y| Rgb([x as u8, y as u8, 90]));
    let jpeg = encoded(&photo, ImageFormat::Jpeg);
    let head = format!(
        "POST /pictures HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        server.address,
        jpeg.len()
    );
    let (first, rest) = jpeg.split_at(10);
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
            stream
        })
        .collect();
    server.send(&jpeg);
    // They were all still open when the quick one was answered.
    for stream in &mut slow {
        stream.write_all(rest).unwrap();
    }
    for stream in slow {
        assert_eq!(answer(stream).0, 200);
    }
}

/// The best class of each pixel from similarities per patch, by the definition of bilinear up-sampling (half-pixel
/// centres, clamped at the edges), in float64.
fn best(scores: &[Vec<f32>], grid: usize, side: usize) -> GrayImage {
    let place =
        |at: usize| ((at as f64 + 0.5) * grid as f64 / side as f64 - 0.5).clamp(0.0, grid as f64 - 1.0);
    GrayImage::from_fn(side as u32, side as u32, |x, y| {
        let (px, py) = (place(x as usize), place(y as usize));
        let (x0, y0) = (px as usize, py as usize);
        let (x1, y1) = ((x0 + 1).min(grid - 1), (y0 + 1).min(grid - 1));
        let (sx, sy) = (px - x0 as f64, py - y0 as f64);
        let value = |of: &Vec<f32>| {
            let cell = |x: usize, y: usize| f64::from(of[y * grid + x]);
            (cell(x0, y0) * (1.0 - sx) + cell(x1, y0) * sx) * (1.0 - sy)
                + (cell(x0, y1) * (1.0 - sx) + cell(x1, y1) * sx) * sy
        };
        let values: Vec<f64> = scores.iter().map(value).collect();
        let of = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
        image::Luma([of as u8])
    })
}

fn share_alike(a: &GrayImage, b: &GrayImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let alike = a.as_raw().iter().zip(b.as_raw()).filter(|(a, b)| a == b).count();
    alike as f64 / a.as_raw().len() as f64
}

const CLASSES: [&str; 4] = ["grass", "ball", "fish", "a ball on the grass"];

/// Scores and mask that `trainer segment` writes for the first scene.
fn segmented(folder: &Path, run: &Path, classes: &str, more: &[&str]) -> (Value, GrayImage) {
    let (image, out) = (folder.join("scenes/images/000000.jpg"), folder.join("out.png"));
    let arguments = [
        "segment",
        text(&image),
        "--classes",
        classes,
        "--out",
        text(&out),
        "--checkpoint",
        text(run),
        "--templates",
        "simple",
    ];
    let told = summary("trainer", &[&arguments[..], more].concat());
    let told = told["pictures"][0].clone();
    let mask = image::open(folder.join("out.mask.png")).unwrap();
    assert!(matches!(mask, image::DynamicImage::ImageLuma8(_)), "a mask has class indices, not colours");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(folder.join("out.json")).unwrap()).unwrap(), told);
    (told, mask.into_luma8())
}

#[test]
fn the_server_agrees_with_the_command_and_serves_many_requests_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let server = Server::start(&run, &[]);
    let photo = |i: usize| fs::read(folder.path().join(format!("scenes/images/{i:06}.jpg"))).unwrap();
    let picture = server.send(&photo(0));
    let scores = server.scores(&picture, &CLASSES);
    let (told, mask) = segmented(folder.path(), &run, &CLASSES.join(","), &[]);
    let alike = share_alike(&best(&scores, 14, 112), &mask);
    assert!(alike > 0.999, "{alike} of the pixels have the same class");
    let counts =
        CLASSES.iter().enumerate().map(|(of, _)| mask.pixels().filter(|p| usize::from(p.0[0]) == of).count());
    for (class, count) in told["classes"].as_array().unwrap().iter().zip(counts) {
        assert!((class["share"].as_f64().unwrap() - count as f64 / (112.0 * 112.0)).abs() < 1e-9, "{class}");
    }

    // The score of a class with two words is the higher of the two, whatever other classes are requested.
    let both = server.scores(&picture, &["fish|ball"]);
    let greater: Vec<f32> = scores[1].iter().zip(&scores[2]).map(|(a, b)| a.max(*b)).collect();
    let apart = both[0].iter().zip(&greater).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5, "{apart}");

    // No cosine similarity reaches 2, and all are above -2.
    let (none, mask) = segmented(folder.path(), &run, "grass,ball", &["--threshold", "2"]);
    assert!(none["background"] == 1.0 && mask.pixels().all(|p| p.0[0] == 255));
    let (all, _) = segmented(folder.path(), &run, "grass,ball", &["--threshold", "-2"]);
    assert_eq!(all["background"], 0.0);

    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..50)
            .map(|i| {
                let (server, photo, picture, scores) = (&server, &photo, &picture, &scores);
                scope.spawn(move || {
                    if i % 2 == 0 {
                        assert_eq!(server.send(&photo(i % 16))["rows"], 14);
                    } else {
                        let again = server.scores(picture, &CLASSES);
                        let apart = again.iter().flatten().zip(scores.iter().flatten());
                        assert!(apart.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5);
                    }
                })
            })
            .collect();
        assert_eq!(asked.into_iter().filter_map(|asked| asked.join().ok()).count(), 50);
    });
}

/// The mask of an expression as the server sends it, and as the command writes it.
#[test]
fn expressions_mean_the_same_on_the_page_and_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let server = Server::start(&run, &[]);
    let photo = fs::read(folder.path().join("scenes/images/000000.jpg")).unwrap();
    let picture = server.send(&photo);
    let ask = |id: &Value, expression: &str, side: u32| {
        let question = json!({"picture": id, "expression": expression, "width": side, "height": side});
        server.ask("POST", "/mask", "application/json", question.to_string().as_bytes())
    };
    let (image, out) = (folder.path().join("scenes/images/000000.jpg"), folder.path().join("meant.png"));
    for (expression, head) in
        [("the ball on the left", "ball"), ("the ball next to the fish", "ball"), ("all balls", "balls")]
    {
        let (status, body) = ask(&picture["id"], expression, 112);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["head"], head);
        assert_eq!(told["similarity"].as_array().unwrap().len(), 14 * 14);
        let mut mask = Vec::new();
        for (number, run) in told["runs"].as_array().unwrap().iter().enumerate() {
            mask.extend(std::iter::repeat_n(
                if number % 2 == 1 { 0 } else { 255 },
                run.as_u64().unwrap() as usize,
            ));
        }
        let arguments =
            ["segment", text(&image), "--refer", expression, "--out", text(&out), "--checkpoint", text(&run)];
        summary("trainer", &arguments);
        let written = image::open(folder.path().join("meant.mask.png")).unwrap().into_luma8();
        let sent = GrayImage::from_raw(112, 112, mask).unwrap();
        assert!(sent.pixels().any(|pixel| pixel.0[0] == 0));
        let alike = share_alike(&sent, &written);
        assert!(alike > 0.99, "{expression}: {alike} of the pixels are the same");
    }
    for (id, expression, side, status, part) in [
        (&picture["id"], "left", 112, 400, "no noun names a thing"),
        (&picture["id"], "ball", 0, 400, "the mask is 0 x 0"),
        (&picture["id"], "ball", 1 << 16, 400, "the mask is 65536 x 65536"),
        (&json!("00"), "ball", 112, 410, "send it again"),
    ] {
        let (found, why) = refusal(ask(id, expression, side));
        assert!(found == status && why.contains(part), "{expression}: {found} {why}");
    }
    let (status, why) = refusal(ask(&picture["id"], &"long ball ".repeat(40), 112));
    assert!(status == 400 && why.contains("characters"), "{status} {why}");
}

/// Saves a screenshot in the folder that the environment variable `SCREENSHOTS` names, if it is set.
fn keep(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        let png = base64::engine::general_purpose::STANDARD.decode(browser.screenshot()).unwrap();
        fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }
}

/// Clears the text field and types these words.
fn write_words(browser: &mut Browser, words: &str) {
    browser.run("const box = document.getElementById('words'); box.value = ''; box.dispatchEvent(new Event('input')); document.body.dataset.took = ''");
    browser.type_into("#words", words);
    let names: Vec<&str> = words.split(',').map(|class| class.split('|').next().unwrap().trim()).collect();
    browser.until(&format!(
        "return !!document.body.dataset.took && !asking && scores && JSON.stringify(scores.classes.map(text => text.split('|')[0])) === {}",
        json!(json!(names).to_string())
    ));
}

#[test]
fn works_in_a_browser() {
    let Some(mut browser) = Browser::start() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no chromedriver and chromium here");
        return println!("skipped: no chromedriver and chromium here");
    };
    let folder = tempfile::tempdir().unwrap();
    // SERVE_CHECKPOINT can name a trained model for useful screenshots; the test works with any model.
    let run = std::env::var_os("SERVE_CHECKPOINT").map(PathBuf::from);
    let own = trained(folder.path());
    let run = run.unwrap_or(own);
    let images = folder.path().join("scenes/images");
    let server = Server::start(&run, &[text(&images), "--words", "grass, ball"]);
    browser.resize(1280, 900);
    browser.visit(&format!("http://{}/", server.address));
    browser.until("return !!labels && !asking");
    assert_eq!(browser.run("return classes.map(each => each.name)"), json!(["grass", "ball"]));
    assert_eq!(browser.run("return document.querySelectorAll('#examples img').length"), 16);

    // The canvas changes when words are typed.
    let pixels = "const canvas = document.getElementById('canvas'); return canvas.toDataURL()";
    let before = browser.run(pixels);
    write_words(&mut browser, &CLASSES.join(", "));
    assert_ne!(browser.run(pixels), before);
    keep(&mut browser, "serve-segments");

    // The downloaded mask is equal to that of the command.
    browser.run("window.saved = []; download = (blob, name) => saved.push({blob, name})");
    browser.click("#mask");
    browser.until("return saved.length === 1");
    assert_eq!(browser.run("return saved[0].name"), "000000.mask.png");
    let bytes = browser.run("return saved[0].blob.arrayBuffer().then(bytes => [...new Uint8Array(bytes)])");
    let bytes: Vec<u8> = serde_json::from_value(bytes).unwrap();
    let saved = image::load_from_memory(&bytes).unwrap();
    assert!(matches!(saved, image::DynamicImage::ImageLuma8(_)));
    let (_, mask) = segmented(folder.path(), &run, &CLASSES.join(","), &[]);
    assert!(share_alike(&saved.into_luma8(), &mask) > 0.999);
    browser.click("#save");
    browser.until("return saved.length === 2");
    assert_eq!(browser.run("return saved[1].blob.type"), "image/png");

    // A click hides a class, and its number key shows it again.
    let share = "return [...document.querySelectorAll('#classes button')].map(button => button.getAttribute('aria-pressed'))";
    let shown = browser.run(pixels);
    browser.click("#classes li:nth-child(2) button");
    assert_eq!(browser.run(share), json!(["true", "false", "true", "true"]));
    browser.click("#canvas");
    browser.press("2");
    assert_eq!(browser.run(share), json!(["true", "true", "true", "true"]));
    browser.run("draw()");
    assert_eq!(browser.run(pixels), shown);

    // Scores under the pointer, best first.
    let place = browser.run("const box = document.getElementById('canvas').getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2].map(Math.round)");
    browser.point(place[0].as_i64().unwrap(), place[1].as_i64().unwrap());
    browser.until("return !document.getElementById('tip').hidden");
    let values = browser.run(
        "return [...document.querySelectorAll('#tip div span:last-child')].map(each => +each.textContent)",
    );
    let values: Vec<f64> = serde_json::from_value(values).unwrap();
    assert!(values.len() == 4 && values.is_sorted_by(|a, b| a >= b), "{values:?}");
    keep(&mut browser, "serve-scores");

    // At the maximum threshold nearly all pixels are background.
    let covered = "return visible(labels).filter(label => label !== 255).length / labels.label.length";
    assert_eq!(browser.run(covered), 1.0);
    browser.run("const slider = document.getElementById('threshold'); slider.value = 100; slider.dispatchEvent(new Event('input'))");
    assert!(browser.run(covered).as_f64().unwrap() < 0.05);
    browser.run("const slider = document.getElementById('threshold'); slider.value = 0; slider.dispatchEvent(new Event('input'))");

    browser.press("h");
    assert_eq!(browser.run("return view()"), "heat");
    keep(&mut browser, "serve-heat");
    browser.press("0");
    assert_eq!(browser.run("return view()"), "segments");

    // The next example by key, a dropped photograph, and a file from the file dialog.
    browser.press("\u{E014}");
    browser.until("return picture.name === '000001.jpg' && !!labels && !asking");
    browser.run("return fetch('examples/3').then(answer => answer.blob()).then(blob => {
        const data = new DataTransfer();
        data.items.add(new File([blob], 'dropped.jpg', {type: 'image/jpeg'}));
        document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
    })");
    browser.until("return picture.name === 'dropped.jpg' && !!labels && !asking");
    let wide = folder.path().join("wide.png");
    let photo = RgbImage::from_fn(900, 300, |x, y| Rgb([(x / 4) as u8, (y / 2) as u8, 120]));
    fs::write(&wide, encoded(&photo, ImageFormat::Png)).unwrap();
    browser.type_into("#file", text(&wide));
    browser.until("return picture.name === 'wide.png' && !!labels && !asking");
    assert_eq!(browser.run("return [picture.rows, picture.columns]"), json!([14, 42]));
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "no picture").unwrap();
    browser.type_into("#file", text(&notes));
    browser.until("return document.getElementById('status').classList.contains('wrong')");
    let status = browser.run("return document.getElementById('status').textContent");
    assert!(status.as_str().unwrap().contains("notes.txt: this cannot be shown"), "{status}");
    assert_eq!(browser.run("return picture.name"), "wide.png", "the image shown before stays");
    // Chromium logs the status 422 itself.
    assert!(browser.errors().iter().all(|error| error.contains("422")));

    browser.run("example(0)");
    browser.until("return picture.name === '000000.jpg' && !!labels && !asking");
    for (width, height) in [(1280, 900), (768, 1024), (390, 844), (320, 640)] {
        browser.resize(width, height);
        let fits = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(fits), 0, "the page is wider than a screen of {width} px");
        browser.dark(width == 390);
        keep(&mut browser, &format!("serve-{width}"));
    }
    // An expression replaces the classes until they are typed again; its pixels are those that the server found.
    browser.run("document.body.dataset.took = ''");
    browser.type_into("#expression", "the ball on the left\n");
    browser.until("return !!document.body.dataset.took && !asking && !!scores?.found");
    let meant = "return [scores.found.inside.filter(Boolean).length, visible(labels).filter(label => label === 0).length]";
    let meant: Vec<u64> = serde_json::from_value(browser.run(meant)).unwrap();
    assert!(meant[0] > 0 && meant[0] == meant[1], "{meant:?}");
    assert_eq!(browser.run("return document.getElementById('classes').children.length"), 1);
    keep(&mut browser, "serve-expression");
    // HTML in words stays text.
    write_words(&mut browser, "<img src=x onerror=window.harmed=1>, \"quotes\" & more");
    assert_eq!(browser.run("return window.harmed ?? null"), Value::Null);
    assert_eq!(
        browser.run("return document.getElementById('expression').value"),
        "",
        "classes replace the expression"
    );
    assert_eq!(browser.errors(), Vec::<String>::new());
}
