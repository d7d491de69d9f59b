import pytest
import torch
from torch.nn.functional import cross_entropy


@pytest.fixture
def learns():
    """Assert that a few steps on two batches reach every parameter and lower the loss: ``learns(network)``."""

    def learn(network):
        generator = torch.Generator().manual_seed(0)
        batches = [
            (torch.rand(14, 1, 48, 48, generator=generator), torch.arange(14) % 7),
            (torch.rand(14, 1, 48, 48, generator=generator), torch.arange(14) % 7),
        ]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        losses = []
        for _ in range(6):
            losses.append(0.0)
            for x, y in batches:
                optimizer.zero_grad()
                loss = cross_entropy(network(x), y)
                loss.backward()
                optimizer.step()
                losses[-1] += loss.item() / len(batches)
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still
        assert losses[-1] < 0.8 * losses[0]

    return learn
