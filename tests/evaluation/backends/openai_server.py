"""A local OpenAI-compatible server around transformers, with faults on demand."""

import contextlib
import http.server
import json
import threading
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.backends.encoding import encode_text


class Server(http.server.ThreadingHTTPServer):
    """Serves a model folder at `url`.

    `faults` are taken one a request: a status with headers, or a function that writes the reply.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.faults = []
        self.asked = []
        self.delay = 0.0
        self.active = 0
        self.most_active = 0
        self.lock = threading.Lock()
        self.has_echo = True
        self.has_logprobs = True

    def handle_error(self, request, client_address):
        """Say nothing: clients hang up in tests."""

    def ids(self, prompt):
        return prompt if isinstance(prompt, list) else encode_text(self.tokenizer, prompt)

    @torch.inference_mode()
    def logprobs(self, ids):
        """Return the log-probabilities after each position, (positions, vocabulary)."""
        return self.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def top(self, row, number):
        values, tokens = row.topk(number)
        texts = [self.tokenizer.decode([token]) for token in tokens.tolist()]
        pairs = sorted(zip(texts, values.tolist(), strict=True), key=lambda pair: pair[1])
        return dict(pairs)  # of tokens with the same text the likeliest

    def echo(self, ids):
        rows = self.logprobs(ids)
        values = [rows[number, token].item() for number, token in enumerate(ids[1:])]
        return {
            "tokens": [self.tokenizer.decode([token]) for token in ids],
            "token_logprobs": [None, *values],
            "top_logprobs": [None, *(self.top(row, 1) for row in rows[:-1])],
        }

    def generate(self, ids, body):
        """Return a greedy answer, its number of tokens and the reason of its end."""
        if not body["max_tokens"]:
            return "", 0, "length"
        with torch.inference_mode():
            output = self.model.generate(
                torch.tensor([ids]),
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                pad_token_id=0,
            )[0, len(ids) :].tolist()
        end = self.tokenizer.eos_token_id
        reason = "stop" if output[-1] == end else "length"
        text = self.tokenizer.decode(output[:-1] if output[-1] == end else output)
        for stop in body.get("stop", []):
            if stop in text:
                text = text.split(stop)[0]
                reason = "stop"
        return text, len(output), reason

    def completion(self, body):
        prompts = body["prompt"]
        if isinstance(prompts, str) or isinstance(prompts[0], int):
            prompts = [prompts]
        choices = []
        num_generated = 0
        for index, prompt in enumerate(prompts):
            ids = self.ids(prompt)
            choice = {"index": index, "text": "", "finish_reason": "length", "logprobs": None}
            if body.get("echo") and self.has_echo:
                choice["logprobs"] = self.echo(ids)
            else:
                text, number, reason = self.generate(ids, body)
                num_generated += number
                choice |= {"text": text, "finish_reason": reason}
                if body.get("logprobs") and self.has_logprobs:
                    top = self.top(self.logprobs(ids)[-1], body["logprobs"])
                    choice["logprobs"] = {"top_logprobs": [top]}
            choices.append(choice)
        choices.reverse()  # their order is not promised
        return choices, sum(len(self.ids(prompt)) for prompt in prompts), num_generated

    def chat(self, body):
        if self.tokenizer.chat_template:
            ids = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        else:
            ids = self.ids("\n\n".join(message["content"] for message in body["messages"]))
        text, number, reason = self.generate(ids, body)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
        if body.get("logprobs") and self.has_logprobs:
            top = self.top(self.logprobs(ids)[-1], body["top_logprobs"])
            entries = [{"token": text, "logprob": value} for text, value in top.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": entries}]}
        return [choice], len(ids), number


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.active += 1
            server.most_active = max(server.most_active, server.active)
            server.asked.append((self.path, body, time.monotonic(), dict(self.headers)))
            fault = server.faults.pop(0) if server.faults else None
        time.sleep(server.delay)
        with server.lock:
            server.active -= 1  # before the reply, which lets the client send its next request
        if callable(fault):
            fault(self)
        elif fault is not None:
            self.reply({"error": {"message": "fault"}}, *fault)
        else:
            self.answer(body)

    def answer(self, body):
        server = self.server
        with server.lock:
            of = server.chat if self.path.endswith("/chat/completions") else server.completion
            choices, prompt_tokens, completion_tokens = of(body)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        self.reply({"model": "tiny-1", "choices": choices, "usage": usage})

    def reply(self, value, status=200, headers=()):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder):
    """Yield a running server."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.daemon = True
    thread.start()
    try:
        yield server
    finally:
        while server.active:  # a thread in torch would abort the interpreter's end
            time.sleep(0.05)
        server.shutdown()
        server.server_close()
