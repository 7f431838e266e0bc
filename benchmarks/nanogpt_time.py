"""Measure how long PyTorch takes for nanoGPT's CPU configuration on this machine.

    pip install torch
    python benchmarks/nanogpt_time.py

The network (4 layers, 4 heads, 128 units, context length 64, batch size 12, no biases, tied embeddings) and AdamW at
1e-3 are those of https://github.com/karpathy/nanoGPT (README, "I only have a macbook"). Its 2,000 steps end at a
validation loss of 1.88 to 1.89 nats on tiny Shakespeare. This implementation has a few lines and trains on random
tokens: it measures the time only.
"""

import statistics
import time

import click
import machine

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, VOCABULARY = 4, 4, 128, 64, 12, 65


@click.command()
@click.option("--steps", default=200, show_default=True, help="Number of timed steps.")
def main(steps: int) -> None:
    """Print milliseconds per step and seconds for 2,000 steps."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
            sizes = {"attend": (WIDTH, 3 * WIDTH), "project": (WIDTH, WIDTH)}
            sizes |= {"expand": (WIDTH, 4 * WIDTH), "reduce": (4 * WIDTH, WIDTH)}
            self.dense = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

        def forward(self, x):
            parts = self.dense["attend"](self.norms[0](x)).view(BATCH, CONTEXT, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.dense["project"](attended.transpose(1, 2).reshape(BATCH, CONTEXT, WIDTH))
            return x + self.dense["reduce"](functional.gelu(self.dense["expand"](self.norms[1](x))))

    tokens, places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
    blocks, last = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
    weights = [weight for part in (tokens, places, blocks, last) for weight in part.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    text = torch.randint(VOCABULARY, (1_000_000,))

    def step() -> None:
        begin = torch.randint(len(text) - CONTEXT - 1, (BATCH,)).tolist()
        x = torch.stack([text[i : i + CONTEXT] for i in begin])
        y = torch.stack([text[i + 1 : i + CONTEXT + 1] for i in begin])
        hidden = last(blocks(tokens(x) + places(torch.arange(CONTEXT))))
        loss = functional.cross_entropy((hidden @ tokens.weight.T).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        loss.item()

    times = []
    for _ in range(steps + 10):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    seconds = statistics.mean(times[10:])
    click.echo(machine.describe())
    click.echo(f"PyTorch {torch.__version__}: {1000 * seconds:.1f} ms a step, {2000 * seconds:.0f} s for 2,000 steps")


if __name__ == "__main__":
    main()
