"""A training script as people write them: accumulation, mixed precision, a schedule, evaluation, checkpoints.

test_training_script.py runs it as it stands, and again with one line changed.
"""

import io
import math

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, ACCUMULATION, MAX_GRAD_NORM, WARMUP = 2, 4, 5.0, 5


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 50)
        self.head.weight = self.embedding.weight  # tied

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def train(precision: torch.dtype | None, seed: int = 0) -> dict[str, object]:
    torch.manual_seed(seed)
    tokens = torch.randint(0, 50, (256, 12))
    labels = (tokens[:, 0] + tokens[:, 1]) % 50
    loader = DataLoader(TensorDataset(tokens, labels), batch_size=8, shuffle=True)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    steps = EPOCHS * len(loader) // ACCUMULATION
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    scaler = torch.amp.GradScaler("cpu", enabled=precision is torch.float16, init_scale=256.0)
    losses, norms = [], []
    for _ in range(EPOCHS):
        for i, (x, y) in enumerate(loader):
            with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                loss = nn.functional.cross_entropy(model(x).float(), y) / ACCUMULATION
            scaler.scale(loss).backward()
            if (i + 1) % ACCUMULATION == 0:
                scaler.unscale_(optimizer)
                norms.append(clip_grad_norm_(model.parameters(), MAX_GRAD_NORM).item())
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    checkpoint = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    model.eval()
    with torch.no_grad():
        return {"losses": losses, "norms": norms, "logits": model(tokens)}
