"""The number of samples in each step: a constant global batch, or one with a ramp-up."""

from megatron_ext.config.sections import Training


class BatchSchedule:
    """The global batch size by consumed samples, as in Megatron-LM's `--rampup-batch-size`.

    Megatron Core has a calculator for this up to 0.18 and another in 0.19; this one is the same
    with both.

    Args:
        training: its global_batch_size and rampup_batch_size.
    """

    def __init__(self, training: Training) -> None:
        self.final = training.global_batch_size
        self.start, self.increment, self.samples = training.rampup_batch_size or (self.final, 1, 1)

    @property
    def sizes(self) -> list[int]:
        """All batch sizes that occur, in their order."""
        return [*range(self.start, self.final, self.increment), self.final]

    def size(self, consumed: int) -> int:
        """Return the global batch size of the step that begins after `consumed` samples."""
        if consumed >= self.samples or self.start == self.final:
            return self.final
        increments = (self.final - self.start) // self.increment
        return self.start + consumed * increments // self.samples * self.increment

    def samples_after(self, steps: int) -> int:
        """Return the samples that the first `steps` steps take together."""
        consumed = 0
        while steps and self.size(consumed) < self.final:
            consumed += self.size(consumed)
            steps -= 1
        return consumed + steps * self.final
