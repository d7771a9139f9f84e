"""A comparison of models by pairs of answers, as plain text."""

from collections.abc import Sequence
from typing import Any

from evaluation.reporting.verdicts import p_value, with_sign


def table(summary: dict[str, Any]) -> str:
    """Return wins, win rates, strengths and biases."""
    lines = [f"{summary['task']}, judge {summary['judge']}", ""]
    rows = [["model", "against", "wins", "ties", "losses", "win rate", "95 % interval", "p"]]
    for match in summary["matches"]:
        counts = [str(match[key]) for key in ("wins", "ties", "losses")]
        rate = match["win_rate"]
        interval = f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} %"
        rows.append(
            [
                match["first"],
                match["second"],
                *counts,
                f"{100 * rate['value']:.1f} %",
                interval,
                p_value(match["corrected_p"]),
            ]
        )
    lines += _aligned(rows)
    names = list(summary["matches"][0]["by_criterion"])
    rows = [["win rate by criterion", *names]]
    for match in summary["matches"]:
        values = [f"{100 * match['by_criterion'][name]['value']:.0f} %" for name in names]
        rows.append([f"{match['first']} against {match['second']}", *values])
    lines += ["", *_aligned(rows), ""]
    rows = [["model", "strength", "95 % interval"]]
    order = sorted(summary["strengths"].items(), key=lambda item: -item[1]["value"])
    for name, value in order:
        rows.append(
            [
                name,
                with_sign(value["value"]),
                f"{with_sign(value['low'])} to {with_sign(value['high'])}",
            ]
        )
    lines += [*_aligned(rows), *_biases(summary)]
    if "human_agreement" in summary:
        lines += _agreement(summary["human_agreement"])
    return "\n".join(lines)


def _biases(summary: dict[str, Any]) -> list[str]:
    order = summary["order_bias"]
    length = summary["length_bias"]["log_odds_per_factor_e"]
    log_odds = with_sign(length["value"])
    limits = f"{with_sign(length['low'])} to {with_sign(length['high'])}"
    return [
        f"order: the first answer wins {100 * order['first_wins']:.1f} % of the decided verdicts;"
        f" {100 * order['changed_by_order']:.1f} % of the pairs are judged differently in the other"
        " order",
        f"length: log-odds {log_odds} ({limits}) for an answer e times as long; strengths are at"
        " equal length",
    ]


def _agreement(entry: dict[str, Any]) -> list[str]:
    lines = []
    for name, rater in entry["raters"].items():
        lines.append(f"judge with {name}: kappa {_shown(rater['kappa'])}, {rater['pairs']} pairs")
    lines.append(f"judge with the mean rating: tau {_shown(entry['tau'])}")
    for names, both in entry["between_raters"].items():
        lines.append(f"{names}: kappa {_shown(both['kappa'])}, {both['pairs']} pairs")
    return lines


def _shown(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "undefined"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
