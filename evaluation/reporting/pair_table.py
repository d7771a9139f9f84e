"""A comparison of models by pairs of answers, as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.reporting import plain_table
from evaluation.reporting.verdicts import p_value, with_sign


def table(summary: dict[str, Any]) -> str:
    """Return wins, win rates, strengths and biases."""
    lines = [
        f"{summary['task']}, judge {summary['judge']}",
        "",
        *plain_table.lines(_match_rows(summary["matches"])),
        "",
        *plain_table.lines(_criterion_rows(summary["matches"])),
        "",
        *plain_table.lines(_strength_rows(summary["strengths"])),
        *_biases(summary),
    ]
    if "human_agreement" in summary:
        lines += _agreement(summary["human_agreement"])
    return "\n".join(lines)


def _match_rows(matches: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = [["model", "against", "wins", "ties", "losses", "win rate", "95 % interval", "p"]]
    for match in matches:
        rate = match["win_rate"]
        rows.append(
            [
                match["first"],
                match["second"],
                str(match["wins"]),
                str(match["ties"]),
                str(match["losses"]),
                f"{100 * rate['value']:.1f} %",
                f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} %",
                p_value(match["corrected_p"]),
            ]
        )
    return rows


def _criterion_rows(matches: Sequence[dict[str, Any]]) -> list[list[str]]:
    criteria = list(matches[0]["by_criterion"])
    rows = [["win rate by criterion", *criteria]]
    for match in matches:
        rates = match["by_criterion"]
        cells = [f"{100 * rates[criterion]['value']:.0f} %" for criterion in criteria]
        rows.append([f"{match['first']} against {match['second']}", *cells])
    return rows


def _strength_rows(strengths: Mapping[str, dict[str, float]]) -> list[list[str]]:
    rows = [["model", "strength", "95 % interval"]]
    for model, strength in sorted(strengths.items(), key=lambda item: -item[1]["value"]):
        interval = f"{with_sign(strength['low'])} to {with_sign(strength['high'])}"
        rows.append([model, with_sign(strength["value"]), interval])
    return rows


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
