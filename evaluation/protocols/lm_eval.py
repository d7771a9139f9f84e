"""Protocols of lm-evaluation-harness 0.4: the likeliest continuation, no few-shot examples."""

from evaluation.protocols.protocol import Protocol

PROTOCOLS = {
    "lm_eval": Protocol("lm_eval"),
    "lm_eval_continuation": Protocol("lm_eval_continuation"),
    "lm_eval_continuation_acc_norm": Protocol("lm_eval_continuation", metric="acc_norm"),
    "lm_eval_continuation_acc_bytes": Protocol("lm_eval_continuation", metric="acc_bytes"),
}
