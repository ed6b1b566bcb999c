"""Choose max_norm from the norms of a run
=======================================

A small network is trained on data with bad batches. `NormMonitor` records the norm of each step, and suggests a
threshold. The run takes a few seconds.
"""

# %%
# Every 97th batch is bad. Without a threshold, `attach` clips nothing; it only tells the norm.

import matplotlib.pyplot as plt
import torch

from gradclip.backends.torch import attach
from gradclip.monitor import NormMonitor

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
monitor = NormMonitor(attach(optimizer))
for step in range(1000):
    x = torch.randn(32, 8)
    y = x[:, :1] * x[:, 1:2] + (30.0 if step % 97 == 96 else 0.0)
    loss = (model(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# The suggestion is a number with a reason.

found = monitor.suggest(share=0.05)
print(found)

# %%
# The norms on a logarithmic axis, and what the threshold would have clipped.

history = monitor.history()
clipped = history.norm > found.max_norm
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.semilogy(history.step, history.norm, linewidth=0.8, color="#0b66b2", label="norm")
axes.semilogy(history.step[clipped], history.norm[clipped], "x", color="#c2410c", label="would be clipped")
axes.axhline(found.max_norm, color="black", linestyle="--", linewidth=1, label=f"max_norm = {found.max_norm:.3g}")
axes.set(xlabel="step", ylabel="norm of the gradients")
axes.legend()
plt.show()
