"""A server on this machine that speaks what reading a data set of the Hugging Face hub needs."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

COMMIT = "0" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the data set a/b from `files` (path -> bytes)."""

    files = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, path):
        data = self.files[path]
        return {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if re.fullmatch(r"/api/datasets/a/b(/revision/main)?", path):
            return self.answer(200, {"id": "a/b", "sha": COMMIT, "siblings": []})
        if re.match(r"/api/datasets/a/b/tree/(main|0+)", path):
            return self.answer(200, [self.entry(name) for name in self.files])
        found = re.fullmatch(r"/datasets/a/b/resolve/(?:main|0+)/(.+)", path)
        if found is None or found[1] not in self.files:
            missing = "EntryNotFound" if "/a/b/" in path else "RepoNotFound"
            return self.answer(404, {"error": "not found"}, X_Error_Code=missing)
        data = self.files[found[1]]
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            return self.answer(
                206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}"
            )
        return self.answer(
            200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT
        )

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.startswith("/api/datasets/a/b/paths-info/"):
            return self.answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = urllib.parse.parse_qs(body.decode())["paths"]
        paths = [paths] if isinstance(paths, str) else paths
        return self.answer(200, [self.entry(path) for path in paths if path in self.files])


@contextlib.contextmanager
def running(files):
    """Run the server; give its address."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (Hub,), {"files": files})
    )
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
