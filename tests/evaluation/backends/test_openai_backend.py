"""A model behind an endpoint scores as one in transformers; faults of the endpoint."""

import json
import logging
import time

import pytest

from evaluation import report, run
from evaluation.backends import openai_client
from galen.errors import DataError, UsageError
from tests.evaluation.backends.openai_server import serving

SENTINEL = "sentinel-77ab01"


@pytest.fixture(scope="module")
def served(tiny_llama):
    with serving(tiny_llama) as server:
        yield server


@pytest.fixture
def server(served, monkeypatch):
    monkeypatch.setattr(openai_client, "FIRST_WAIT", 0.001)
    time.sleep(0.05)
    while served.active:  # requests of the test before, whose client has ended
        time.sleep(0.05)
    served.faults = []
    served.asked = []
    served.delay = 0.0
    served.most_active = 0
    served.has_echo = True
    served.has_logprobs = True
    return served


@pytest.fixture
def arguments(data, tmp_path):
    def of(output, *more):
        return [
            *("--tasks", "mesh_topics", "--data", str(data), "--num-fewshot", "0"),
            *("--output", str(tmp_path / output), *more),
        ]

    return of


@pytest.fixture
def ask(arguments, server):
    """Return a function that scores by the endpoint."""

    def run_with(output, *more):
        endpoint = ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
        run.main(arguments(output, *endpoint, *more))

    return run_with


def samples_of(folder, name="mesh_topics"):
    lines = (folder / "samples" / f"{name}.jsonl").read_text("utf-8").splitlines()
    return {sample["id"]: sample for sample in map(json.loads, lines)}


def results_of(folder):
    return json.loads((folder / "results.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("protocol", "route", "more"),
    [
        ("lm_eval", "completions", []),
        ("lm_eval", "completions", ["--tokenizer"]),
        ("lm_eval_continuation", "completions", []),
        ("lm_eval_continuation", "completions", ["--tokenizer"]),
        ("meditron_zero_shot", "completions", ["--top-logprobs", "64"]),
        ("meditron_zero_shot", "chat", ["--top-logprobs", "64"]),
        ("meditron_cot", "completions", ["--max-new-tokens", "12"]),
        ("meditron_cot", "completions", ["--max-new-tokens", "12", "--tokenizer"]),
        ("meditron_cot", "chat", ["--max-new-tokens", "12"]),
        ("biomistral", "completions", ["--top-logprobs", "64"]),
    ],
)
def test_samples_equal_those_of_transformers(
    ask, arguments, tiny_llama, tmp_path, protocol, route, more
):
    if "--tokenizer" in more:
        more = [*more, str(tiny_llama)]
    ask("endpoint", "--protocol", protocol, "--route", route, *more)
    local = [item for item in more if item not in ("--tokenizer", str(tiny_llama))]
    if "--top-logprobs" in local:
        local = []
    folder = ["--model", str(tiny_llama), "--device", "cpu"]
    run.main(arguments("local", *folder, "--protocol", protocol, *local))
    theirs = samples_of(tmp_path / "endpoint")
    ours = samples_of(tmp_path / "local")
    assert set(theirs) == set(ours) and len(ours) == 9
    for id_, sample in ours.items():
        other = theirs[id_]
        for key in ("answer", "prediction", "correct", "outputs", "num_tokens", "top"):
            assert other.get(key) == sample.get(key), (id_, key)
        if protocol.startswith("lm_eval"):
            assert other["logprobs"] == pytest.approx(sample["logprobs"], abs=1e-4)
        for label, value in other.get("logprobs", {}).items():
            assert value == pytest.approx(sample["logprobs"][label], abs=1e-4)
    prompts = "prompts/mesh_topics.jsonl"
    assert (tmp_path / "endpoint" / prompts).read_bytes() == (
        tmp_path / "local" / prompts
    ).read_bytes()


def test_results_count_requests_tokens_and_cost(ask, server, tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO):
        ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "5")
        assert "9 requests, about" in caplog.text and "at most 45 generated tokens" in caplog.text
        assert "cost" not in caplog.text
        prices = ["--price-in", "2", "--price-out", "8"]
        ask("priced", "--protocol", "meditron_cot", "--max-new-tokens", "5", *prices)
        assert "cost about" in caplog.text
    entry = results_of(tmp_path / "scores")["endpoint"]
    prompts = sum(len(server.ids(body["messages"][0]["content"])) for _, body, *_ in server.asked)
    assert (entry["requests"], entry["retries"], entry["cost"]) == (9, 0, None)
    assert entry["prompt_tokens"] == prompts // 2 and 9 <= entry["completion_tokens"] <= 45
    assert entry["truncated"] > 0 and entry["served_models"] == ["tiny-1"]
    assert "requests" in capsys.readouterr().out
    priced = results_of(tmp_path / "priced")["endpoint"]
    cost = (2 * entry["prompt_tokens"] + 8 * entry["completion_tokens"]) / 1e6
    assert priced["cost"] == pytest.approx(cost)
    report.main([str(tmp_path / "scores"), "--output", str(tmp_path / "report.html")])


def broken(handler):
    """Half of a reply, then the connection is dropped."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()


def dropped(handler):
    handler.connection.close()


def replying(value):
    return lambda handler: handler.reply(value)


FAULTS = [
    (429, {"Retry-After": "0"}),
    (500,),
    (502,),
    (503,),
    (524,),
    (529,),
    broken,
    dropped,
    replying(b"<html>bad gateway</html>"),
    replying(b'{"choices": ['),
    replying(b"[]"),
    replying({"choices": []}),
    replying({"choices": [None]}),
    replying({"choices": [{"message": "?"}]}),
    replying({"choices": [{"message": {"content": [{"type": "image"}]}}]}),
    replying({"error": {"message": "overloaded"}}),
]


def test_faults_are_overcome_and_change_no_score(ask, server, tmp_path, caplog):
    options = ["--protocol", "meditron_cot", "--max-new-tokens", "5"]
    ask("clean", *options)
    server.faults = list(FAULTS)
    ask("faulty", *options)
    assert server.faults == []
    [first, *_] = [record.message for record in caplog.records if "attempt" in record.message]
    assert first.endswith("; attempt 2 of 6 in 0 s")
    assert samples_of(tmp_path / "faulty") == samples_of(tmp_path / "clean")
    entry = results_of(tmp_path / "faulty")["endpoint"]
    assert entry["retries"] == len(FAULTS) and entry["requests"] == 9
    not_finite = {"tokens": ["a", "b"], "token_logprobs": [None, float("nan")]}
    prompt = {"tokens": ["a"], "token_logprobs": [None]}
    damaged = {"choices": [{"logprobs": entry} for entry in [prompt, *[not_finite] * 4]]}
    server.faults = [(500,), replying({"choices": []}), dropped, replying(damaged)]
    ask("scored", "--protocol", "lm_eval", "--route", "completions")
    assert len(samples_of(tmp_path / "scored")) == 9


def test_retry_after_stops_all_requests(ask, server):
    server.faults = [(429, {"Retry-After": "1"})]
    ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "2", "--concurrency", "1")
    times = [moment for _, _, moment, _ in server.asked]
    assert len(times) == 10
    assert times[1] - times[0] >= 1.0 and times[2] - times[1] < 1.0


def test_retry_after_is_a_number_or_a_date():
    assert openai_client.retry_after("7") == 7.0 and openai_client.retry_after("0.5") == 0.5
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 27 < openai_client.retry_after(date) <= 30
    assert openai_client.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for text in (None, "", "soon", "-1", "9" * 50, "nan"):
        assert openai_client.retry_after(text) is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((401,), "refuses with 401"),
        ((404,), "refuses with 404"),
        ((429, {"Retry-After": "0"}), "refuses with 429"),
        (dropped, "cannot be reached"),
        (replying(b"?"), "no JSON object"),
        (replying({"choices": []}), "no choices"),
    ],
)
def test_lasting_faults_are_errors(ask, server, monkeypatch, fault, message):
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    server.faults = [fault] * 200
    with pytest.raises(DataError, match=message) as caught:
        ask("scores", "--protocol", "meditron_cot", "--concurrency", "2")
    assert SENTINEL not in str(caught.value)


def test_no_quota_is_not_waited_for(ask, server):
    content = b'{"error": {"code": "insufficient_quota"}}'
    server.faults = [lambda handler: handler.reply(content, 429, {"Retry-After": "99"})] * 9
    with pytest.raises(DataError, match="insufficient_quota"):
        ask("scores", "--protocol", "meditron_cot", "--concurrency", "1")


def test_an_echo_of_other_tokens_is_refused(ask, server, monkeypatch, tiny_llama):
    """Each of them shifts the tokens that are scored, or adds some."""
    echo = server.echo
    options = ["--protocol", "lm_eval", "--route", "completions"]
    with_ids = [*options, "--tokenizer", str(tiny_llama)]
    for ids in ((lambda ids: [0, *ids]), (lambda ids: [*ids, 5])):
        monkeypatch.setattr(server, "echo", lambda prompt, ids=ids: echo(ids(prompt)))
        with pytest.raises(DataError, match="adds special tokens, or generates further ones"):
            ask("tokens", *with_ids)
    completion = server.completion

    def continued(body):
        choices, *counts = completion(body)
        for choice, prompt in zip(reversed(choices), body["prompt"], strict=True):
            choice["text"] = f"{prompt} and so on"
        return choices, *counts

    monkeypatch.setattr(server, "echo", lambda ids: echo([*ids, 5]))
    monkeypatch.setattr(server, "completion", continued)
    with pytest.raises(DataError, match="continues a prompt although `max_tokens` is 0: ' and so"):
        ask("text", *options)


def test_stop_strings_do_not_end_the_thinking(ask, server, tmp_path):
    message = {"content": "The answer is B. ### C", "reasoning_content": "First ### then"}
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    server.faults = [replying(reply)] * 9
    ask("scores", "--protocol", "meditron_cot")
    for sample in samples_of(tmp_path / "scores").values():
        assert sample["prediction"] == "B" and sample["truncated_thinking"] == [False]
        assert sample["outputs"] == ["<think>First ### then</think>\n\nThe answer is B. "]


@pytest.mark.parametrize(
    ("message", "finish_reason", "output", "truncated_thinking"),
    [
        ({"content": None}, "content_filter", "", False),
        ({"content": None}, "length", "", False),
        ({}, "stop", "", False),
        ({"content": "The answer is B.", "reasoning_content": "Not A."}, "stop", "B", False),
        ({"content": "The answer is B.", "reasoning": "The answer is A."}, "stop", "B", False),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Not A."}]},
                    {"type": "text", "text": "The answer is B."},
                ]
            },
            *("stop", "B", False),
        ),
        ({"content": None, "reasoning_content": "The answer is A."}, "length", "", True),
    ],
)
def test_answers_without_text_and_with_thinking(
    ask, server, tmp_path, message, finish_reason, output, truncated_thinking
):
    reply = {"choices": [{"message": message, "finish_reason": finish_reason}]}
    server.faults = [replying(reply)] * 9
    ask("scores", "--protocol", "chat")
    for sample in samples_of(tmp_path / "scores").values():
        assert sample["prediction"] == (output or None)
        assert sample["truncated_thinking"] == [truncated_thinking]
    entry = results_of(tmp_path / "scores")["endpoint"]
    is_empty = not (message.get("content") or message.get("reasoning_content"))
    assert entry["empty"] == (9 if is_empty else 0)
    assert entry["truncated"] == (9 if finish_reason == "length" else 0)
    assert entry["without_usage"] == 9


def test_a_killed_run_asks_nothing_twice(ask, server, tmp_path):
    """Also where only some of a question's several answers had come."""
    options = ["--protocol", "meditron_sc_cot", "--max-new-tokens", "3", "--num-samples", "3"]
    ask("whole", *options)
    bodies = sorted(json.dumps(body, sort_keys=True) for _, body, *_ in server.asked)
    assert len(bodies) == len(set(bodies)) == 27  # each answer has its own seed
    server.asked = []
    # the first error ends the run, as a kill does
    server.faults = [None] * 10 + [(400,)]
    with pytest.raises(DataError, match="refuses with 400"):
        ask("killed", *options, "--concurrency", "2")
    time.sleep(0.3)  # the other thread's request
    log = tmp_path / "killed" / "requests.jsonl"
    with log.open("ab") as file:
        file.write(b'{"key": "half of a li')
    answered = len(log.read_bytes().splitlines()) - 1
    assert 10 <= answered < 27
    server.asked = []
    server.faults = []
    ask("killed", *options)
    assert len(server.asked) == 27 - answered
    assert samples_of(tmp_path / "killed") == samples_of(tmp_path / "whole")
    assert results_of(tmp_path / "killed")["endpoint"]["requests"] == 27
    server.asked = []
    ask("killed", *options)
    assert server.asked == []


def test_requests_are_concurrent_up_to_the_limit(ask, server):
    server.delay = 0.1
    ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "2", "--concurrency", "4")
    assert server.most_active == 4


def test_a_timeout_is_an_error_after_several_tries(ask, server, monkeypatch):
    monkeypatch.setattr(openai_client, "TRIES", 2)
    server.delay = 1.0
    with pytest.raises(DataError, match="timed out"):
        ask(
            "scores",
            "--protocol",
            "meditron_cot",
            "--max-new-tokens",
            "2",
            "--request-timeout",
            "0.2",
        )


def test_the_key_is_sent_and_written_nowhere(ask, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", SENTINEL)
    reply = {"choices": [{"message": {"content": f"B {SENTINEL}"}, "finish_reason": "stop"}]}
    server.faults = [replying(reply)] * 9
    ask("scores", "--protocol", "chat", "--api-key-variable", "MY_KEY")
    assert all(headers["Authorization"] == f"Bearer {SENTINEL}" for *_, headers in server.asked)
    for path in (tmp_path / "scores").rglob("*"):
        assert not path.is_file() or SENTINEL.encode() not in path.read_bytes(), path


def test_chat_protocols_send_messages(ask, server, tmp_path):
    ask(
        "scores",
        "--protocol",
        "chat",
        "--system-prompt",
        "Be brief.",
        "--answer-format",
        "json",
        "--max-new-tokens",
        "3",
    )
    body = server.asked[0][1]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == "Be brief."
    assert body["temperature"] == 0.0 and "seed" not in body and "top_p" not in body
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["answer"]
    assert "chat_template_kwargs" not in body
    variables = ["--chat-template-kwargs", '{"enable_thinking": false}']
    ask(
        "other",
        "--protocol",
        "chat",
        *variables,
        "--temperature",
        "0.5",
        "--top-p",
        "0.9",
        "--max-new-tokens",
        "3",
    )
    body = server.asked[-1][1]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["temperature"] == 0.5 and body["top_p"] == 0.9 and body["seed"] >= 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--protocol", "lm_eval"], "the protocol lm_eval compares log-probabilities"),
        (["--protocol", "chat", "--model", "m"], "takes no --model: the endpoint has"),
        (["--protocol", "chat", "--adapter", "a"], "takes no --adapter"),
        (["--protocol", "chat", "--processes", "2"], "see --concurrency"),
        (["--protocol", "chat", "--tokenizer", "t"], "goes with --route completions"),
        (["--protocol", "chat", "--thinking-budget", "9"], "takes no --thinking-budget"),
        (["--protocol", "chat", "--concurrency", "0"], "must be at least 1"),
        (["--protocol", "chat", "--price-in", "-1"], "--price-in must be at least 0"),
        (["--protocol", "chat", "--api-key-variable", "sk-1234"], "give its name"),
        (["--protocol", "chat", "--base-url", "ftp://a"], "is not an endpoint URL"),
        (["--protocol", "chat", "--num-samples", "2"], "give --temperature"),
        (
            ["--route", "completions", "--tasks", "pubmed_perplexity"],
            "perplexity at an endpoint needs --route completions with the model's tokenizer",
        ),
    ],
)
def test_unsupported_settings_are_refused_before_any_request(ask, server, more, message):
    with pytest.raises(UsageError, match=message):
        ask("scores", *more)
    assert server.asked == []


def test_missing_log_probabilities_are_an_error_by_name(ask, server):
    server.has_echo = False
    with pytest.raises(DataError, match="returns no log-probabilities of prompts"):
        ask("scores", "--protocol", "lm_eval", "--route", "completions")
    server.has_logprobs = False
    for route in ("chat", "completions"):
        with pytest.raises(DataError, match="reads the option letter from; use a protocol that"):
            ask(route, "--protocol", "meditron_zero_shot", "--route", route)


def test_a_refusal_says_what_the_task_needs(ask, server):
    server.faults = [(400,)]
    with pytest.raises(DataError, match="give --no-guided-decoding"):
        ask("json", "--protocol", "chat", "--answer-format", "json", "--concurrency", "1")
    # the next request of the first run may still be on its way
    server.faults = [(400,)] * 2
    with pytest.raises(DataError, match="needs completions with several prompts, `echo` and"):
        ask("scores", "--protocol", "lm_eval", "--route", "completions", "--concurrency", "1")


def test_the_newer_name_of_max_tokens_is_used_where_it_is_wanted(ask, server, tmp_path):
    content = b'{"error": {"message": "Unsupported: use \'max_completion_tokens\' instead."}}'
    server.faults = [lambda handler: handler.reply(content, 400)]
    reply = {"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}
    server.faults += [replying(reply)] * 9
    ask("scores", "--protocol", "chat", "--concurrency", "1")
    bodies = [body for _, body, *_ in server.asked]
    assert "max_tokens" in bodies[0] and len(bodies) == 10
    assert all("max_completion_tokens" in body and "max_tokens" not in body for body in bodies[1:])
    assert len(samples_of(tmp_path / "scores")) == 9


def test_an_option_of_the_endpoint_without_it_is_refused(arguments, tiny_llama):
    with pytest.raises(UsageError, match="--price-in goes with --backend openai"):
        run.main(arguments("scores", "--model", str(tiny_llama), "--price-in", "1"))


def test_model_route_and_address_are_part_of_the_identity(ask, tmp_path):
    ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "2")
    for other in (["--route", "completions"], ["--model-name", "other"]):
        with pytest.raises(UsageError, match="belongs to another run"):
            ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "2", *other)
    # prices and concurrency are not
    ask("scores", "--protocol", "meditron_cot", "--max-new-tokens", "2", "--concurrency", "2")


def test_options_are_permuted_at_an_endpoint_too(ask, tmp_path):
    ask("scores", "--protocol", "lm_eval", "--route", "completions", "--permute-options", "4")
    entry = results_of(tmp_path / "scores")
    assert entry["tasks"]["mesh_topics"]["order_bias"]["questions"] == 9
    assert entry["endpoint"]["requests"] == 36
