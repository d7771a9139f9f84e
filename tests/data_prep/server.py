"""A local HTTP server that misbehaves as told."""

import contextlib
import http.server
import threading
import urllib.parse


class Site:
    """Files and answers of the server.

    `requests` lists (path with query, Range header) of what came in.
    """

    def __init__(self):
        self.files, self.requests, self.headers = {}, [], []
        self.break_after = {}
        """path -> list of numbers.

        How many bytes of the body to send before the connection is cut, one for each of the next
        requests.
        """
        self.refuse = {}
        """path -> list of (status, headers), one for each of the next requests."""
        self.ranges = True
        self.version = '"v1"'
        self.types = {}
        """path -> Content-Type; None: the answer states none."""
        self.compressions = {}
        """path -> Content-Encoding."""
        self.hold = {}
        """path -> an event that the answer waits for."""

    @contextlib.contextmanager
    def running(self):
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, request):
        path = urllib.parse.unquote(request.path)
        self.requests.append((path, request.headers.get("Range")))
        self.headers.append(dict(request.headers))
        if path in self.hold:
            self.hold[path].wait(60)
        if self.refuse.get(path):
            status, headers = self.refuse[path].pop(0)
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data = self.files.get(path)
        if data is None:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        wanted = request.headers.get("Range")
        if wanted and self.ranges and request.headers.get("If-Range", self.version) == self.version:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            request.send_response(206 if start < len(data) else 416)
            request.send_header(
                "Content-Range",
                (
                    f"bytes {start}-{len(data) - 1}/{len(data)}"
                    if start < len(data)
                    else f"bytes */{len(data)}"
                ),
            )
        else:
            request.send_response(200)
        if (kind := self.types.get(path, "application/octet-stream")) is not None:
            request.send_header("Content-Type", kind)
        if path in self.compressions:
            request.send_header("Content-Encoding", self.compressions[path])
        request.send_header("ETag", self.version)
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        body = data[start:]
        if self.break_after.get(path):
            body = body[: self.break_after[path].pop(0)]
            request.close_connection = True
        request.wfile.write(body)
