"""A local stand-in for the Hugging Face hub that accepts uploads and keeps them.

Its endpoints are those that `huggingface_hub` calls: create a repository, check the card's front
matter, ask for each file's way (in the commit or by Git LFS), the LFS batch and its uploads, and
the commit, a line of JSON for each file.
"""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import yaml

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Start it with `with Hub() as hub`.

    Args:
        token: requests need it; with None all are refused.
    """

    def __init__(self, token="hf_test"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.url = token, f"http://127.0.0.1:{self.server_port}"
        self.asked, self.repositories, self.large, self.commits = [], {}, {}, []
        """Requested paths, creation requests by repository, LFS contents by SHA-256, commits.

        A commit is (message, contents by path).
        """

    def __enter__(self):
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if (
            self.server.token is None
            or self.headers["Authorization"] != f"Bearer {self.server.token}"
        ):
            return self.answer(403, {"error": "refused"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories[name] = asked
            return self.answer(200, {"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer(
                200, {"errors": mistakes(json.loads(body)["content"]), "warnings": []}
            )
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", self.path):
            return self.answer(200, {"files": [way(file) for file in json.loads(body)["files"]]})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            return self.answer(
                200,
                {
                    "transfer": "basic",
                    "objects": [self.place(item) for item in json.loads(body)["objects"]],
                },
            )
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/commit/main", self.path):
            self.server.commits.append(self.commit(body))
            repository = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
            url = f"{self.server.url}/{repository}/commit/{COMMIT}"
            return self.answer(200, {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        return self.answer(404, {"error": f"no such endpoint {self.path}"})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self.answer(200, {})

    def place(self, item):
        return {**item, "actions": {"upload": {"href": f"{self.server.url}/large/{item['oid']}"}}}

    def commit(self, body):
        head, *files = (json.loads(line) for line in body.splitlines())
        contents = {}
        for file in files:
            value = file["value"]
            contents[value["path"]] = (
                base64.b64decode(value["content"])
                if file["key"] == "file"
                else self.server.large[value["oid"]]
            )
        return head["value"]["summary"], contents

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def mistakes(card):
    """Return the errors of a model card's front matter.

    It has to be YAML with a license and a base model without spaces.
    """
    front = yaml.safe_load(card.split("---\n")[1])
    wrong = [
        key
        for key in ("license", "base_model")
        if not re.fullmatch(r"[\w./-]+", str(front.get(key, "")))
    ]
    return [{"message": f'"{key}" is not valid'} for key in wrong]


def way(file):
    large = file["path"].endswith(".safetensors")
    return {
        "path": file["path"],
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
        "oid": None,
    }
