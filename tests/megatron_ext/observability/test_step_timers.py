import contextlib

import pytest

from megatron_ext.observability.step_timers import StepTimers


class Device:
    """A device that has reached the marks up to `reached`, at 1, 2, 4, 8 … seconds."""

    def __init__(self):
        self.marks = 0
        self.reached = 100

    def event(self):
        return Event(self)


class Event:
    def __init__(self, device):
        self.device = device

    def record(self):
        self.number = self.device.marks
        self.device.marks += 1

    def query(self):
        return self.number < self.device.reached

    def elapsed_time(self, later):
        return 1000 * (2**later.number - 2**self.number)


def test_a_moment_belongs_to_the_innermost_phase():
    timers = StepTimers(Device().event)
    with timers.phase("forward_backward"):  # 1 to 32
        with timers.phase("data"):  # 2 to 4
            pass
        assert timers.wrap(lambda value: value, "gradient_sync")(7) == 7  # 8 to 16
    timers.end_step()
    timers.end_step()
    assert timers.take() == {"data": 1.0, "forward_backward": 10.5, "gradient_sync": 4.0}
    assert timers.take() == {}


def test_the_device_is_not_waited_for():
    device = Device()
    timers = StepTimers(device.event)
    with timers.phase("optimizer"):
        pass
    device.reached = 1
    timers.end_step()
    assert timers.take() == {}
    device.reached = 2
    timers.end_step()
    assert timers.take() == {"optimizer": 1.0}


def test_phases_are_annotated_and_end_with_an_error():
    names = []
    timers = StepTimers(Device().event)
    timers.annotate = lambda name: names.append(name) or contextlib.nullcontext()
    with pytest.raises(ValueError), timers.phase("data"):
        raise ValueError
    timers.end_step()
    assert (names, timers.take()) == (["data"], {"data": 1.0})
