"""Pretraining with a faulty second process: `main(["hang" or "slow", RECIPE, …])`.

It hangs in Python in the second step, or its device is slow.
"""

import os
import time

from megatron_ext import pretrain
from megatron_ext.training import stragglers, train_step


def main(argv):
    fault, *arguments = argv
    if os.environ["RANK"] == "1":
        FAULTS[fault]()
    return pretrain.main(arguments)


def hang():
    forward = train_step.TrainStep._forward_step
    calls = []

    def forward_or_sleep(self, batches, model):
        if model.training:
            calls.append(model)
        if len(calls) > 4:  # the micro-batches of the first step
            sleep_forever()
        return forward(self, batches, model)

    train_step.TrainStep._forward_step = forward_or_sleep


def sleep_forever():
    while True:
        time.sleep(60)


def slow():
    multiply = stragglers.ComputeProbe._multiply

    def multiply_often(self):
        for _ in range(100):
            multiply(self)

    stragglers.ComputeProbe._multiply = multiply_often


FAULTS = {"hang": hang, "slow": slow}
