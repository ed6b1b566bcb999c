"""A character transformer: attach, and who makes up the norm
==========================================================

A small character transformer, trained on Python's documentation; `attach` clips before each step of its optimizer.

``python examples/torch_char_transformer.py`` runs offline, in less than a minute on a CPU. It prints the loss and the
norm before clipping, and at the end how much each parameter contributes to the norm.
"""

import pydoc_data.topics

import torch
from torch import Tensor, nn

from gradclip.backends.torch import attach, explain

TEXT = "\n".join(pydoc_data.topics.topics.values())
LENGTH, WIDTH = 64, 64


class Transformer(nn.Module):
    """A transformer that predicts the next character: two layers of causal attention."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, vocabulary)

    def forward(self, codes: Tensor) -> Tensor:
        """Return logits of shape (batch, length, vocabulary) for codes of shape (batch, length)."""
        x = self.characters(codes) + self.places.weight[: codes.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(codes.shape[1])
        logits: Tensor = self.head(self.layers(x, mask=mask, is_causal=True))
        return logits


def train(steps: int = 100, max_norm: float = 1.0, seed: int = 0) -> tuple[list[float], list[float], Transformer]:
    """Return the losses, the norms before clipping, and the model with its last gradients."""
    torch.manual_seed(seed)
    characters = sorted(set(TEXT))
    codes = torch.tensor([characters.index(c) for c in TEXT[:50_000]])
    model = Transformer(len(characters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    clipping = attach(optimizer, max_norm=max_norm)
    losses, norms = [], []
    for _ in range(steps):
        starts = torch.randint(len(codes) - LENGTH - 1, (16,))
        piece = torch.stack([codes[start : start + LENGTH + 1] for start in starts.tolist()])
        loss = nn.functional.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        assert clipping.norm is not None
        losses.append(loss.item())
        norms.append(clipping.norm.item())
    return losses, norms, model


if __name__ == "__main__":
    losses, norms, model = train()
    for step in range(0, len(losses), len(losses) // 10):
        print(f"step {step:4d}  loss {losses[step]:.3f}  norm {norms[step]:.2f}")
    print(explain(model, top=5))
