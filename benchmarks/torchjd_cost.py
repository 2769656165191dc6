"""TorchJD's step on the CNN of balancing_cost.py; run by a Python with torch and torchjd.

Prints the seconds per step of one round for each line that it reads.
"""

import json
import sys
import time

import torch
from torch import nn
from torchjd.aggregation import UPGrad
from torchjd.autojac import mtl_backward

kind, seconds = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(2)
trunk = nn.Sequential(
    nn.Conv2d(1, 16, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 5 * 5, 64),
    nn.ReLU(),
)
heads = nn.ModuleList([nn.Linear(64, 10) for _ in range(4)])
x = torch.randn(2048, 1, 16, 16)
labels = torch.randint(0, 10, (4, 2048))
optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=1e-3)
aggregator, cross_entropy = UPGrad(), nn.CrossEntropyLoss()


def step():
    index = torch.randint(0, 2048, (64,))
    features = trunk(x[index])
    losses = [cross_entropy(h(features), labels[i, index]) for i, h in enumerate(heads)]
    optimizer.zero_grad()
    if kind == "plain":
        sum(losses).backward()
    else:
        jacobians(losses, features)
    optimizer.step()


def jacobians(losses, features):
    try:
        mtl_backward(losses, features=features, aggregator=aggregator)
    except TypeError:  # newer versions leave Jacobians, to be aggregated in a further call
        from torchjd.autojac import jac_to_grad

        mtl_backward(losses, features=features)
        jac_to_grad(trunk.parameters(), aggregator)


for _ in range(3):
    step()
for _ in sys.stdin:
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    print(json.dumps((time.perf_counter() - began) / count), flush=True)
