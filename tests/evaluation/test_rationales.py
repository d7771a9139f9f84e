"""Text metrics, judge and builders, with a local server that speaks the OpenAI protocol."""

import csv
import dataclasses
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluation import build, rationales
from evaluation.chat_models import local_chat
from evaluation.metrics import text_metrics
from evaluation.protocols.registry import get_protocol
from evaluation.reporting import paper_tables, rationale_summaries
from galen.errors import DataError, UsageError

for package in ("sacrebleu", "rouge_score", "rjieba", "sudachipy"):
    pytest.importorskip(package, reason="in the extra `evaluation`")


@pytest.fixture
def server():
    """A server; `reply` is a function from a message to an answer, a status, or None to break off.

    `asked` holds all messages.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = body["messages"][0]["content"]
            server.asked.append(message)
            answer = server.reply(message)
            self.send_response(answer if isinstance(answer, int) else 200)
            if answer is None:  # breaks off
                self.send_header("Content-Length", "99")
            self.end_headers()
            if isinstance(answer, str):
                self.wfile.write(
                    json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
                )

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_true_bleu_1_and_rouge_1():
    """ "the cat sat" against "the cat is here": precision 2/3, brevity penalty exp(1 - 4/3).

    ROUGE-1 recall is 2/4.
    """
    assert text_metrics.bleu1(["the cat sat"], ["the cat is here"], "en") == pytest.approx(
        100 * 2 / 3 * 2.718281828 ** (1 - 4 / 3)
    )
    assert text_metrics.rouge1("the cat sat", "the cat is here", "en") == pytest.approx(
        100 * 2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)
    )
    assert text_metrics.bleu1([""], ["the cat"], "en") == 0
    assert text_metrics.rouge1("", "the cat", "en") == 0


MMEDLM = [
    (
        "en",
        "The patient has Type 2 diabetes. Metformin is first-line, e.g. 500 mg b.i.d. It isn't"
        " insulin!",
        "Metformin is the first-line drug in type 2 diabetes; insulin isn't needed. Dr. Smith"
        " agrees.",
        47.619048,
        23.529411,
    ),
    ("en", "the the the the", "the cat sat on the mat", 30.326533, 33.333333),
    ("en", "a.", "a. . b", 30.326533, 50.0),  # white space between full stops is a word there
    ("en", "Wrong words", "nothing common", 0.0, 0.0),
    (
        "fr",
        "L'hypertension artérielle est fréquente. Elle n'est pas rare.",
        "L'hypertension est une maladie fréquente. Élevée chez l'adulte.",
        50.0,
        37.5,
    ),
    (
        "es",
        "¿Qué opción? La opción A es correcta. Área roja.",
        "La opción A es la correcta. ¡No la B!",
        50.0,
        58.823529,
    ),
    (
        "ru",
        "Артериальная гипертензия. Эта болезнь частая.",
        "Гипертензия — частая болезнь. Артериальная.",
        71.428571,
        60.0,
    ),
    (
        "zh",
        "荧光测量法是一种利用荧光来测量物质浓度的分析技术。选项A是正确的，因为激发波长被选择为小于待分析分子的发射波长。",
        "C命题是正确的，根据比尔-朗伯定律，只要溶液足够稀释以避免猝灭效应，发射的荧光强度与荧光物质的浓度成正比。",
        35.294118,
        33.333333,
    ),
]
"""Texts with the values of the packages that MMedLM uses: nltk's `sentence_bleu` with the weights
(1, 0, 0, 0) and `method1`, rouge 1.0.1, jieba 0.42.1."""


@pytest.mark.parametrize(("language", "hypothesis", "reference", "bleu", "rouge"), MMEDLM)
def test_bleu_1_and_rouge_1_of_mmedlm(language, hypothesis, reference, bleu, rouge):
    found = text_metrics.bleu1_mmedlm(hypothesis, reference, language)
    assert found == pytest.approx(bleu, abs=1e-6)
    found = text_metrics.rouge1_mmedlm(hypothesis, reference, language)
    assert found == pytest.approx(rouge, abs=1e-6)


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
def test_empty_texts_score_zero_as_mmedlm(language):
    for texts in (("", "x"), ("x", ""), ("", ""), (" . ", "x")):
        assert text_metrics.bleu1_mmedlm(*texts, language) == 0
        assert text_metrics.rouge1_mmedlm(*texts, language) == 0


def test_mean_of_texts_is_not_the_corpus_value():
    """BLEU-1 of the corpus weighs texts by their length; MMedLM's is the mean of 100 and 25."""
    hypotheses = ["yes", "one two three four"]
    references = ["yes", "one five six seven"]
    means = [
        text_metrics.bleu1_mmedlm(*texts, "en")
        for texts in zip(hypotheses, references, strict=True)
    ]
    assert sum(means) / 2 == pytest.approx(62.5)
    assert text_metrics.bleu1(hypotheses, references, "en") == pytest.approx(40)


def write_results(folder, **settings):
    protocol = get_protocol("mmedbench_rationale")
    results = {
        "model": {"name": "ours", "path": "ours"},
        "protocol": "mmedbench_rationale",
        "settings": json.loads(json.dumps(dataclasses.asdict(protocol) | settings)),
        "tasks": {
            "mmedbench_french": {
                "kind": "multiple_choice",
                "samples": 622,
                "metrics": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}},
            }
        },
        "versions": {},
    }
    (folder / "results.json").write_text(json.dumps(results))


def test_summary_and_the_tables_of_the_paper(scores, tmp_path, capsys):
    write_results(scores)
    for name in ("samples", "prompts"):
        (scores / name / "fr.jsonl").rename(scores / name / "mmedbench_french.jsonl")
    output = tmp_path / "rationales.jsonl"
    command = [str(scores), "--task", "mmedbench_french", "--output", str(output)]
    rationales.main(command)
    [line] = capsys.readouterr().out.splitlines()
    for name in (
        "BLEU-1 (corpus) ",
        "ROUGE-1 ",
        "BLEU-1 (MMedLM: mean of texts) ",
        "ROUGE-1 (MMedLM: different words) ",
    ):
        assert f", {name}" in line
    path = tmp_path / "rationales.jsonl.summary.json"
    summary = json.loads(path.read_text())
    french = summary["languages"]["fr"]
    assert (summary["model"], summary["samples"], french["rationales"]) == ("ours", 622, 4)
    assert list(french["metrics"]) == ["bleu1_corpus", "rouge1", "bleu1_mmedlm", "rouge1_mmedlm"]
    records = [json.loads(record) for record in output.read_text().splitlines()]
    bleu = [record["metrics"]["bleu1_mmedlm"] for record in records]
    assert french["metrics"]["bleu1_mmedlm"]["value"] == pytest.approx(sum(bleu) / 4)

    runs = rationale_summaries.read([path])
    found = {table.name: table for table in paper_tables.paper_tables([], runs)}
    assert list(found) == ["mmedbench_bleu1", "mmedbench_rouge1"]
    table = found["mmedbench_bleu1"]
    assert table.bold == {0} and table.footnotes == ()
    assert table.rows[0] == ["ours", "", "", "", f"{sum(bleu) / 4:.1f}", "", "", ""]
    assert table.rows[-3] == [
        "MMedLM 2 (7B)",
        "50.0",
        "51.4",
        "54.8",
        "49.0",
        "37.5",
        "50.1",
        "48.8",
    ]

    # only the average is known
    assert table.rows[-1] == ["MMed-Llama 3 (8B)", *[""] * 6, "47.2"]

    summary["samples"] = 100
    path.write_text(json.dumps(summary))
    table = paper_tables.paper_tables([], rationale_summaries.read([path]))[0]
    assert table.bold == frozenset()
    assert "French: n = 100 of 622, 4 with a checked rationale, 95 % interval" in table.footnotes[0]

    with pytest.raises(
        DataError, match="the rationales of ours on mmedbench_french are given twice"
    ):
        rationale_summaries.read([path, path])
    del summary["languages"]
    path.write_text(json.dumps(summary))
    with pytest.raises(
        DataError, match="is not a summary of `galen rationales`: the key 'languages'"
    ):
        rationale_summaries.read([path])
    with pytest.raises(DataError, match=r"cannot read .*nowhere"):
        rationale_summaries.read([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("zh", "患者有高血压。", ["患者", "有", "高血压", "。"]),
        ("ja", "患者は高血圧です。", ["患者", "は", "高", "血圧", "です", "。"]),
        ("fr", "L'hypertension artérielle.", ["l", "'", "hypertension", "artérielle", "."]),
        ("ru", "Артериальная гипертензия", ["артериальная", "гипертензия"]),
    ],
)
def test_words_of_a_language(language, text, words):
    assert text_metrics.words(text, language) == words
    assert text_metrics.bleu1([text], [text], language) == pytest.approx(100)


def test_bertscore_against_a_plain_loop(tmp_path, tiny_tokenizer):
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    BertModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_tokenizer / name).read_bytes())
    metric = text_metrics.BertScore(tmp_path)
    one, other = "the heart of rats", "aspirin in adults"
    assert metric.f1(one, one) == pytest.approx(100, abs=1e-3)
    encoder, tokenizer = (
        AutoModel.from_pretrained(tmp_path).eval(),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    with torch.no_grad():
        a, b = (
            encoder(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0]
            for text in (one, other)
        )
    best = [[torch.cosine_similarity(x, y, dim=0).item() for y in b] for x in a]
    precision = sum(max(row) for row in best) / len(a)
    recall = sum(max(row[place] for row in best) for place in range(len(b))) / len(b)
    assert metric.f1(one, other) == pytest.approx(
        100 * 2 * precision * recall / (precision + recall), abs=1e-3
    )
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("pooler.dense.weight", "encoder.layer.1.output.dense.weight"):
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"lacks 1 weights, for example encoder\.layer\.1\.output\.dense\.weight"
    ):
        text_metrics.BertScore(tmp_path)


@pytest.fixture
def scores(tmp_path):
    folder = tmp_path / "scores"
    for name in ("samples", "prompts"):
        (folder / name).mkdir(parents=True)
    with (
        (folder / "samples" / "fr.jsonl").open("w") as samples,
        (folder / "prompts" / "fr.jsonl").open("w") as prompts,
    ):
        for n in range(4):
            output = f"###Rationale: Parce que {n}.\n###Answer: OPTION A IS CORRECT."
            item = {
                "id": str(n),
                "language": "fr",
                "outputs": [output],
                "rationale": f"Parce que {n} est juste.",
            }
            samples.write(
                json.dumps(item if n else {**item, "rationale": ""} | {"rationale": "x"}) + "\n"
            )
            prompts.write(json.dumps({"id": str(n), "prompt": f"Question {n} ?"}) + "\n")
    return folder


def test_judge_sheet_and_restart(scores, server, tmp_path, capsys):
    server.reply = lambda message: (
        "Rating: 4" if "Parce que 2" in message else "I say: Rating: **2**"
    )
    output, sheet = tmp_path / "out.jsonl", tmp_path / "sheet.csv"
    arguments = [
        str(scores),
        "--task",
        "fr",
        "--output",
        str(output),
        "--sheet",
        str(sheet),
        "--base-url",
        server.url,
        "--model-name",
        "m",
    ]
    rationales.main(arguments)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert {record["id"]: record["metrics"]["judge"] for record in found} == {
        "0": 2,
        "1": 2,
        "2": 4,
        "3": 2,
    }
    assert "fr: 4 rationales, BLEU-1" in capsys.readouterr().out
    assert [row["rationale"] for row in csv.DictReader(sheet.open())][1] == "Parce que 1."
    output.write_text("".join(json.dumps(record) + "\n" for record in found[:2]) + '{"id": "2"')
    server.asked.clear()
    rationales.main(arguments)
    assert len(server.asked) == 2  # what was judged is not judged again
    assert [json.loads(line) for line in output.read_text().splitlines()] == found
    with pytest.raises(UsageError, match="holds scores of another run, encoder or judge"):
        rationales.main([*arguments, "--model-name", "another"])


def test_an_endpoint_that_is_busy_refuses_or_talks_nonsense(scores, server, tmp_path, monkeypatch):
    arguments = [
        str(scores),
        "--task",
        "fr",
        "--output",
        str(tmp_path / "o.jsonl"),
        "--base-url",
        server.url,
        "--model-name",
        "m",
    ]
    monkeypatch.setattr("time.sleep", lambda _: None)
    # one that gives no rating is asked again
    answers = iter([503, 429, None, "Rating: 3", "3", "none", "3", "3"])
    server.reply = lambda _: next(answers)
    rationales.main(arguments)
    server.reply = lambda _: 401
    with pytest.raises(DataError, match="refuses with 401"):
        rationales.main([*arguments, "--output", str(tmp_path / "p.jsonl")])
    server.reply = lambda _: "Excellent!"
    with pytest.raises(DataError, match="in 3 tries; its last reply is 'Excellent!'"):
        rationales.main([*arguments, "--output", str(tmp_path / "p.jsonl")])
    with pytest.raises(UsageError, match="is not an endpoint URL"):
        rationales.main(
            [*arguments, "--output", str(tmp_path / "p.jsonl"), "--base-url", "localhost"]
        )


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    records = [
        {
            "id": str(n),
            "question": f"Give {n} mg of {{drug}}?",
            "options": {"A": "1,5 mg", "B": "Salt"},
            "answer": "AB"[n % 2],
        }
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_rationales_are_kept_when_they_lead_to_the_answer(questions, server, tmp_path):
    tries = Counter()

    def reply(message):
        if "Correct answer:" in message:
            number = message.split("Give ")[1][0]
            tries[number] += 1
            return f"Because {number}, {tries[number]}."
        number = message.split("Give ")[1][0]
        right = "AB"[int(number) % 2]
        # 1 comes right at the second try, 3 never
        wrong = number == "3" or (number == "1" and tries[number] == 1)
        return f"The answer is: {'BA'[int(number) % 2] if wrong else right}"

    server.reply = reply
    output, sheet = tmp_path / "out.jsonl", tmp_path / "check.csv"
    arguments = [
        "rationales",
        "--reader",
        "galen",
        "--questions",
        str(questions),
        "--output",
        str(output),
    ]
    arguments += ["--base-url", server.url, "--model-name", "m", "--check", str(sheet)]
    build.main(arguments)
    kept = {record["id"]: record for record in map(json.loads, output.read_text().splitlines())}
    assert set(kept) == {"0", "1", "2"}
    assert (
        kept["1"]["rationale"],
        kept["1"]["provenance"]["tries"],
        kept["1"]["provenance"]["model"],
    ) == ("Because 1, 2.", 2, "m")
    [refused] = map(json.loads, (tmp_path / "out.rejected.jsonl").read_text().splitlines())
    assert refused["reasons"] == ["the rationale leads to A, not to B"] * 3
    assert [row["rationale"] for row in csv.DictReader(sheet.open())] == [
        "Because 0, 1.",
        "Because 1, 2.",
        "Because 2, 1.",
    ]
    server.asked.clear()
    build.main(arguments)
    assert not server.asked
    with pytest.raises(UsageError, match=r"out\.jsonl belongs to another run \(.*instruction.*: "):
        build.main(["translate", "--to", "French", *arguments[1:]])


def test_translations_keep_options_numbers_and_placeholders(questions, server, tmp_path):
    def reply(message):
        record = json.loads(message[message.index('{"context"', message.index("text}}.")) :])
        number = record["question"].split()[1]
        options = {"A": "1.5 mg", "B": "Sel"}
        question = f"Donner {number} mg de {{drug}} ?"
        return {
            "0": json.dumps({"context": "", "question": question, "options": options}),
            "1": json.dumps(
                {"context": "", "question": question.replace("1", "7"), "options": options}
            ),
            "2": json.dumps({"context": "", "question": "Donner 2 mg ?", "options": options}),
            "3": json.dumps({"context": "", "question": question, "options": {"A": "x"}}),
        }[number]

    server.reply = reply
    output = tmp_path / "fr.jsonl"
    arguments = [
        "translate",
        "--to",
        "French",
        "--reader",
        "galen",
        "--questions",
        str(questions),
        "--output",
        str(output),
    ]
    build.main([*arguments, "--base-url", server.url, "--model-name", "m", "--tries", "1"])
    [kept] = map(json.loads, output.read_text().splitlines())
    assert (kept["id"], kept["question"], kept["options"]["B"], kept["language"]) == (
        "0",
        "Donner 0 mg de {drug} ?",
        "Sel",
        "fr",
    )
    refused = {
        record["id"]: record["reasons"][0]
        for record in map(json.loads, (tmp_path / "fr.rejected.jsonl").read_text().splitlines())
    }
    assert (
        refused["1"].startswith("the numbers differ") and refused["2"] == "the placeholders differ"
    )
    assert refused["3"] == "the options are A, not A, B"


def test_a_local_model_replaces_an_endpoint(questions, tiny_llama, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = tmp_path / "out.jsonl"
    arguments = [
        "rationales",
        "--reader",
        "galen",
        "--questions",
        str(questions),
        "--output",
        str(output),
        "--limit",
        "1",
        "--tries",
        "1",
    ]
    build.main([*arguments, "--local-model", str(tiny_llama)])  # a random model explains nothing
    [refused] = map(json.loads, (tmp_path / "out.rejected.jsonl").read_text().splitlines())
    assert refused["provenance"]["model"].startswith(f"{tiny_llama.name} (files ")
    for wrong, message in [
        ([], "no model is named"),
        (["--base-url", "http://x", "--model-name", "m"], "exclude each other"),
    ]:
        with pytest.raises(UsageError, match=message):
            build.main([*arguments, *(["--local-model", str(tiny_llama)] if wrong else []), *wrong])
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tiny_llama),
        AutoModelForCausalLM.from_pretrained(tiny_llama),
    )
    ids = tokenizer("Give 5 mg", return_tensors="pt").input_ids
    whole = model.generate(
        ids,
        attention_mask=ids.new_ones(ids.shape),
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
    )[0, ids.shape[1] :]
    expected = tokenizer.decode(whole[:-1] if whole[-1] == 0 else whole)
    assert local_chat.LocalChat(tiny_llama).ask("Give 5 mg", max_tokens=8) == expected
