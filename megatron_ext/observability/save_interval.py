"""The checkpoint interval that costs a run the least time, by J. T. Daly's formula.

With M the mean time between failures, D the time that training stands still for a save and R that
of a restart, a run that saves every T seconds of training needs

    M · exp(R / M) · (exp((T + D) / M) - 1) / T

seconds for each second of training. It is least for

    T = √(2DM) · (1 + √(D / 2M) / 3 + D / 18M) - D,    or T = M where D ≥ 2M

whose first term is J. W. Young's √(2DM). R does not change T.

Sources: J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
Future Generation Computer Systems 22 (2006) 303-312, equation 37; J. W. Young, "A first
order approximation to the optimum checkpoint interval", Communications of the ACM 17 (1974) 530.
"""

import dataclasses
import math

FEW_FAILURES = 3
"""With fewer failures, the mean time between them is only a bound."""
_CHI_SQUARED_HALVES = (2.996, 4.744, 6.296)
"""Half the 95 % quantile of chi-squared with 2n + 2 degrees of freedom, for n failures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveInterval:
    """A recommended checkpoint interval and the figures it follows from; times in seconds."""

    present: int
    """`training.save_interval` of the recipe, in steps."""
    recommended: int
    """In steps."""
    is_lower_bound: bool
    """Whether the best interval is at least the recommended one, with 95 % confidence."""
    stall_seconds: float
    """Mean time that training stood still for a save."""
    step_seconds: float
    """Mean time of a step."""
    failures: int
    """Ends and rollbacks after which steps had to be done again."""
    mtbf_seconds: float
    """Mean time between failures, or its lower bound."""
    restart_seconds: float
    """Mean time from the end of a failed start to the first step of the next one."""
    present_overhead: float
    """Fraction of the time that saves, lost work and restarts cost at the present interval."""
    recommended_overhead: float


def recommend(
    *,
    present: int,
    stall_seconds: float,
    step_seconds: float,
    failures: int,
    operating_seconds: float,
    restart_seconds: float,
) -> SaveInterval | None:
    """Return the recommended interval, None where a figure has not been measured yet.

    Args:
        present: the recipe's interval in steps.
        stall_seconds: mean time that training stands still for a save.
        step_seconds: mean time of a step.
        failures: number of failures.
        operating_seconds: time in which they occurred.
        restart_seconds: mean time of a restart.
    """
    if min(stall_seconds, step_seconds, operating_seconds) <= 0:
        return None
    few = failures < FEW_FAILURES
    expected = _CHI_SQUARED_HALVES[failures] if few else failures
    mtbf = operating_seconds / expected
    recommended = max(1, round(optimum(stall_seconds, mtbf) / step_seconds))
    return SaveInterval(
        present=present,
        recommended=recommended,
        is_lower_bound=few,
        stall_seconds=stall_seconds,
        step_seconds=step_seconds,
        failures=failures,
        mtbf_seconds=mtbf,
        restart_seconds=restart_seconds,
        present_overhead=overhead(present * step_seconds, stall_seconds, mtbf, restart_seconds),
        recommended_overhead=overhead(
            recommended * step_seconds, stall_seconds, mtbf, restart_seconds
        ),
    )


def optimum(stall: float, mtbf: float) -> float:
    """Return the seconds of training between two saves that cost the least time."""
    if stall >= 2 * mtbf:
        return mtbf
    ratio = stall / (2 * mtbf)
    return math.sqrt(2 * stall * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - stall


def overhead(interval: float, stall: float, mtbf: float, restart: float) -> float:
    """Return the fraction of a run's time that saves, lost work and restarts cost.

    Args:
        interval: seconds of training between two saves.
        stall: seconds that training stands still for a save.
        mtbf: mean seconds between failures.
        restart: seconds of a restart.
    """
    exponent = (interval + stall) / mtbf
    if exponent + restart / mtbf > 500:  # no end in sight
        return 1.0
    return 1 - interval / (mtbf * math.exp(restart / mtbf) * math.expm1(exponent))
