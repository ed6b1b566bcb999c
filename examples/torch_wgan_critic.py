"""A WGAN: the critic is clipped by value
======================================

A WGAN on a ring of Gaussians; the critic's gradients are clipped by value: python examples/torch_wgan_critic.py.

`attach` clips the critic's gradients by value before each step of its optimizer. The critic's weights are clamped, as
in the paper [1]_, so that the critic is Lipschitz. It runs offline, in a few seconds on a CPU.

References
----------
.. [1] M. Arjovsky, S. Chintala, L. Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875, Algorithm 1.
"""

import math

import torch
from torch import Tensor, nn

from gradclip.backends.torch import attach

CENTRES, RADIUS, CLAMP = 8, 2.0, 0.1


def ring(n: int) -> Tensor:
    """Return random points near eight centres on a circle: shape (n, 2)."""
    angle = 2 * math.pi * torch.randint(CENTRES, (n,)) / CENTRES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(n, 2)


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Return a perceptron with two hidden layers."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def train(steps: int = 120, seed: int = 0) -> tuple[list[float], Tensor]:
    """Return the estimated distance between the distributions at each step, and samples of the trained generator."""
    torch.manual_seed(seed)
    critic, generator = network(2, 1), network(4, 2)
    of_critic = torch.optim.RMSprop(critic.parameters(), lr=5e-3)
    of_generator = torch.optim.RMSprop(generator.parameters(), lr=1e-3)
    attach(of_critic, max_value=0.01)
    distances = []
    for _ in range(steps):
        for _ in range(5):
            loss = critic(generator(torch.randn(128, 4)).detach()).mean() - critic(ring(128)).mean()
            of_critic.zero_grad()
            loss.backward()
            of_critic.step()
            with torch.no_grad():
                for weight in critic.parameters():
                    weight.clamp_(-CLAMP, CLAMP)
        distances.append(-loss.item())
        of_generator.zero_grad()
        (-critic(generator(torch.randn(128, 4))).mean()).backward()
        of_generator.step()
    return distances, generator(torch.randn(1000, 4)).detach()


if __name__ == "__main__":
    distances, samples = train()
    for step in range(0, len(distances), len(distances) // 10):
        print(f"step {step:4d}  distance {distances[step]:.4f}")
    print(f"mean radius of the samples {samples.norm(dim=1).mean():.2f}, of the ring {RADIUS}")
