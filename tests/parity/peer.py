"""The same models in PyTorch as its users would write them for speed: the peer of `musicrl bench`.

    peer.py ['{"threads": 2, "stages": ["rollout", "learner"], ...}']

Tries every variant (eager, torch.compile, and compiled with frozen weights where nothing is learnt) under every
sensible thread setting, each in a process of its own, and prints one JSON line: the PyTorch version, and for each stage
the best rate, its seconds and what was tried: frames/s of "rollout" and "learner" (a frame of one sample counts as
one), clips/s of "reward" and "reward_bf16", pairs/s of "preference". `pip install torch` brings the newest version; 1.13 and later work.
With "check" nothing is measured: the outputs of small models are compared with twin.py.
"""

import json
import math
import os
import subprocess
import sys
import time

DEFAULTS = {
    "threads": 1, "stages": ["rollout", "learner"], "variants": None, "settings": None, "repeats": 2,
    "temporal": {"layers": 8, "width": 512, "heads": 8, "feed_forward": 1408},
    "depth": {"layers": 4, "width": 256, "heads": 4, "feed_forward": 704},
    "codebooks": [1024, 1024, 1024, 1024], "prefix": 12, "prefix_codebook": 1024, "frames": 250, "batch": 16,
    "pair_captions": 4, "pair_clips": 8, "temperature": 0.99, "alpha": 0.1, "check": False,
}


def thread_settings(threads):
    """Environments to try. Where the products come from OpenBLAS (Debian), its threads and torch's own fight over the
    cores, so that one of them should have them all; MKL shares torch's."""
    import torch
    base = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    settings = {"plain": base}
    if threads > 1 and not torch.backends.mkl.is_available():
        settings["torch's threads"] = {**base, "OPENBLAS_NUM_THREADS": 1}
        settings["OpenBLAS's threads"] = {**base, "OMP_NUM_THREADS": 1}
    elif threads > 1:
        settings["spinning"] = {**base, "OMP_WAIT_POLICY": "ACTIVE"}
    return {name: {key: str(value) for key, value in setting.items()} for name, setting in settings.items()}


def build(sizes):
    """Everything that needs torch, so that the parent process never starts its threads."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x):
            if hasattr(F, "rms_norm"):
                return F.rms_norm(x, x.shape[-1:], self.weight, 1e-5)
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight

    def attend(q, k, v, causal=False, mask=None):
        if hasattr(F, "scaled_dot_product_attention"):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
        if causal:
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v

    class Block(nn.Module):
        def __init__(self, width, heads, feed_forward):
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = Norm(width), Norm(width)
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.gate_up = nn.Linear(width, 2 * feed_forward, bias=False)
            self.down = nn.Linear(feed_forward, width, bias=False)

        def queries_keys_values(self, x, cosine, sine):
            batch, sequence, _ = x.shape
            parts = self.qkv(self.norm1(x)).view(batch, sequence, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            first, second = parts[:2].chunk(2, dim=-1)
            rotated = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
            return rotated[0], rotated[1], parts[2]

        def finish(self, x, attended):
            x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
            gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * up)

        def forward(self, x, cosine, sine, cache=None):
            q, k, v = self.queries_keys_values(x, cosine, sine)
            if cache is not None:
                cache[0][:, :, : x.shape[1]] = k
                cache[1][:, :, : x.shape[1]] = v
            return self.finish(x, attend(q, k, v, causal=x.shape[1] > 1))

    class Stack(nn.Module):
        def __init__(self, layers, width, heads, feed_forward, positions):
            super().__init__()
            self.layers = nn.ModuleList(Block(width, heads, feed_forward) for _ in range(layers))
            self.norm = Norm(width)
            half = width // heads // 2
            angles = torch.arange(positions, dtype=torch.float64)[:, None] * 10000.0 ** (
                -torch.arange(half, dtype=torch.float64) / half)
            self.register_buffer("cosine", angles.cos().float(), persistent=False)
            self.register_buffer("sine", angles.sin().float(), persistent=False)
            visible = torch.arange(positions)[None, :] <= torch.arange(positions)[:, None]
            self.register_buffer("visible", visible, persistent=False)
            self.cache_shape = (2, heads, positions, 2 * half)

        def new_cache(self, batch):
            two, heads, positions, head_dim = self.cache_shape
            return [torch.zeros(two, batch, heads, positions, head_dim) for _ in self.layers]

        def forward(self, x, cache=None):
            sequence = x.shape[1]
            for i, block in enumerate(self.layers):
                x = block(x, self.cosine[:sequence], self.sine[:sequence], None if cache is None else cache[i])
            return self.norm(x)

        def decode(self, x, position, cache):
            """One position, x [batch, 1, width]. An int position reads the filled part of the cache; a tensor [1]
            (static shapes, for the compiler) reads all of it under a mask."""
            static = not isinstance(position, int)
            cosine, sine = ((self.cosine.index_select(0, position), self.sine.index_select(0, position)) if static
                            else (self.cosine[position], self.sine[position]))
            mask = self.visible.index_select(0, position) if static else None
            for block, both in zip(self.layers, cache):
                q, k, v = block.queries_keys_values(x, cosine, sine)
                if static:
                    both[0].index_copy_(2, position, k)
                    both[1].index_copy_(2, position, v)
                    keys, values = both[0], both[1]
                else:
                    both[0, :, :, position] = k[:, :, 0]
                    both[1, :, :, position] = v[:, :, 0]
                    keys, values = both[0, :, :, : position + 1], both[1, :, :, : position + 1]
                x = block.finish(x, attend(q, keys, values, mask=mask))
            return self.norm(x)

    def table(entries, width):
        return nn.Embedding(entries, width)

    class Temporal(nn.Module):
        """The stage that policy and value network share; the names are those of the checkpoints."""

        def __init__(self):
            super().__init__()
            t = sizes["temporal"]
            self.temporal = Stack(positions=sizes["prefix"] + sizes["frames"] + 1, **t)
            self.temporal.embedding = nn.ModuleList(table(entries, t["width"]) for entries in sizes["codebooks"])
            self.prefix = nn.ModuleDict(
                {"embedding": table(sizes["prefix"] * sizes["prefix_codebook"], t["width"])})
            self.begin = table(1, t["width"])
            self.register_buffer("prefix_offset", torch.arange(sizes["prefix"]) * sizes["prefix_codebook"],
                                 persistent=False)

        def embed(self, tokens):
            parts = [layer(tokens[..., level]) for level, layer in enumerate(self.temporal.embedding)]
            return sum(parts[1:], parts[0])

        def start(self, prefix):
            begin = self.begin.weight.expand(prefix.shape[0], 1, -1)
            return torch.cat([self.prefix["embedding"](prefix + self.prefix_offset), begin], dim=1)

        def hidden(self, prefix, tokens):
            x = torch.cat([self.start(prefix), self.embed(tokens[:, :-1])], dim=1)
            return self.temporal(x)[:, sizes["prefix"]:]

    class Policy(Temporal):
        def __init__(self):
            super().__init__()
            width = sizes["depth"]["width"]
            self.levels = len(sizes["codebooks"])
            self.depth = Stack(positions=self.levels, **sizes["depth"])
            self.depth.input = nn.Linear(sizes["temporal"]["width"], width, bias=False)
            self.depth.level = table(self.levels, width)
            self.depth.embedding = nn.ModuleList(table(entries, width) for entries in sizes["codebooks"][:-1])
            self.head = nn.ModuleList(nn.Linear(width, entries, bias=False) for entries in sizes["codebooks"])

        def forward(self, prefix, tokens):
            condition = self.depth.input(self.hidden(prefix, tokens).flatten(0, 1))
            before = [layer(tokens[..., level].flatten()) for level, layer in enumerate(self.depth.embedding)]
            x = torch.stack([condition] + [condition + part for part in before], dim=1) + self.depth.level.weight
            hidden = self.depth(x)
            return [head(hidden[:, level]) for level, head in enumerate(self.head)]

        def frame(self, x, position, cache, depth_cache):
            """Tokens and log-probabilities [batch, levels] of one frame, and the input of the next."""
            return self.draw(self.temporal.decode(x, position, cache), depth_cache)

        def draw(self, hidden, depth_cache):
            condition = self.depth.input(hidden)
            tokens, scores = [], []
            for level in range(self.levels):
                x = condition + self.depth.level.weight[level]
                if level > 0:
                    x = x + self.depth.embedding[level - 1](tokens[-1]).unsqueeze(1)
                logits = self.head[level](self.depth.decode(x, level, depth_cache)[:, 0])
                log_p = (logits * (1.0 / sizes["temperature"])).log_softmax(-1)
                # The largest of p / exponential noise is a draw from p, without a cumulative sum.
                token = (log_p.exp() / torch.empty_like(log_p).exponential_(1.0)).argmax(-1)
                tokens.append(token)
                scores.append(log_p.gather(-1, token.unsqueeze(-1)))
            drawn = torch.stack(tokens, dim=-1)
            return drawn, torch.cat(scores, dim=-1), self.embed(drawn).unsqueeze(1)

        @torch.inference_mode()
        def rollout(self, prefix, frames, frame, static):
            batch = prefix.shape[0]
            cache, depth_cache = self.temporal.new_cache(batch), self.depth.new_cache(batch)
            tokens = torch.empty(batch, frames, self.levels, dtype=torch.long)
            scores = torch.empty(batch, frames, self.levels)
            hidden = self.temporal(self.start(prefix), cache)[:, -1:]
            tokens[:, 0], scores[:, 0], x = self.draw(hidden, depth_cache)
            for t in range(1, frames):
                position = prefix.shape[1] + t
                tokens[:, t], scores[:, t], x = frame(x, torch.tensor([position]) if static else position, cache,
                                                      depth_cache)
            return tokens, scores

    class Value(Temporal):
        def __init__(self):
            super().__init__()
            self.value = nn.Linear(sizes["temporal"]["width"], 1)

        def forward(self, prefix, tokens):
            return self.value(self.hidden(prefix, tokens)).squeeze(-1)

    class Reward(Temporal):
        """Reads whole clips: the mean and the variation of the outputs from `begin` to the last frame, and a head."""

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * sizes["temporal"]["width"], 1)

        def forward(self, prefix, tokens):
            x = self.temporal(torch.cat([self.start(prefix), self.embed(tokens)], dim=1))[:, sizes["prefix"]:]
            varied = torch.stack([x.var(1, unbiased=False), x.diff(dim=1).square().mean(1)], dim=1)
            return self.head(torch.cat([x.mean(1), torch.log(10.0 * varied + 1e-3).flatten(1)], dim=1)).squeeze(-1)

    def initialise(module):
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, parameter.shape[1] ** -0.5)
        return module

    return torch, {name: initialise(kind()) for name, kind in
                   {"policy": Policy, "reference": Policy, "value": Value, "reward": Reward}.items()}


def inputs(torch, sizes, batch=None):
    batch = sizes["batch"] if batch is None else batch
    prefix = torch.randint(sizes["prefix_codebook"], (batch, sizes["prefix"]))
    tokens = torch.stack([torch.randint(entries, (batch, sizes["frames"])) for entries in sizes["codebooks"]], dim=-1)
    return prefix, tokens


def optimiser(torch, module):
    for extra in ({"fused": True}, {"foreach": True}, {}):
        try:
            found = torch.optim.AdamW(module.parameters(), lr=1e-5, **extra)
            probe = torch.nn.Parameter(torch.zeros(1))
            probe.grad = torch.zeros(1)
            torch.optim.AdamW([probe], lr=1e-5, **extra).step()
            return found
        except (TypeError, RuntimeError):
            continue
    raise SystemExit("peer.py: no AdamW works here")


def best_seconds(sizes, work):
    """The first call compiles and warms up."""
    work()
    times = []
    for _ in range(sizes["repeats"]):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def reward_seconds(torch, sizes, models, variant):
    """Scores of a batch of clips."""
    prefix, tokens = inputs(torch, sizes)
    reward = models["reward"].eval().requires_grad_(False)
    if sizes["stage"] == "reward_bf16":
        reward = reward.to(torch.bfloat16)
    if variant != "eager":
        reward = torch.compile(reward, options={"freezing": variant == "frozen"})
    with torch.inference_mode() if variant == "eager" else torch.no_grad():
        return best_seconds(sizes, lambda: reward(prefix, tokens))


def preference_seconds(torch, sizes, models, variant):
    """A training step on all pairs of the clips of each caption; every clip is read once. Likelihood with ties after
    Davidson and with votes for neither clip, as in core/reward_model.h."""
    clips, captions = sizes["pair_clips"], sizes["pair_captions"]
    prefix, tokens = inputs(torch, sizes, clips * captions)
    first, second = torch.triu_indices(clips, clips, 1)
    offsets = torch.arange(captions)[:, None] * clips
    first, second = (offsets + first).flatten(), (offsets + second).flatten()
    votes = torch.randint(4, first.shape)
    reward = models["reward"]
    threshold = torch.nn.Parameter(torch.zeros(2))
    reward.register_parameter("threshold", threshold)
    step_of = optimiser(torch, reward)

    def loss_of():
        scores = reward(prefix, tokens)
        a, b = scores[first], scores[second]
        bad = torch.sigmoid(threshold[1] - a) * torch.sigmoid(threshold[1] - b)
        half = (a - b) / 2
        chosen = torch.stack([half, -half, threshold[0].expand_as(half)], dim=-1).log_softmax(-1)
        log_p = torch.cat([(1 - bad).log()[:, None] + chosen, bad.log()[:, None]], dim=-1)
        return -log_p.gather(-1, votes[:, None]).mean()

    if variant != "eager":
        loss_of = torch.compile(loss_of)

    def step():
        step_of.zero_grad(set_to_none=True)
        loss_of().backward()
        torch.nn.utils.clip_grad_norm_(reward.parameters(), 1.0)
        step_of.step()

    return best_seconds(sizes, step)


def rollout_seconds(torch, sizes, models, variant):
    policy = models["policy"]
    prefix, _ = inputs(torch, sizes)
    policy.eval().requires_grad_(False)
    frame, static = policy.frame, False
    if variant != "eager":
        frame, static = torch.compile(policy.frame, options={"freezing": variant == "frozen"}), True
    policy.rollout(prefix, min(8, sizes["frames"]), frame, static)
    return best_seconds(sizes, lambda: policy.rollout(prefix, sizes["frames"], frame, static))


def learner_seconds(torch, sizes, models, variant):
    """A learner step as method and bench define it: reference forward, policy and value forward and backward,
    exact KL, AdamW on both."""
    policy, reference, value = models["policy"], models["reference"], models["value"]
    prefix, tokens = inputs(torch, sizes)
    reference.eval().requires_grad_(False)
    policy_step, value_step = optimiser(torch, policy), optimiser(torch, value)
    alpha, batch = sizes["alpha"], sizes["batch"]
    returns = torch.rand(batch, 1).expand(-1, sizes["frames"])
    inverse_temperature = 1.0 / sizes["temperature"]

    def policy_loss(advantages, base):
        loss = 0.0
        for level, logits in enumerate(policy(prefix, tokens)):
            log_p = (logits * inverse_temperature).log_softmax(-1)
            log_q = (base[level] * inverse_temperature).log_softmax(-1)
            chosen = log_p.gather(-1, tokens[..., level].reshape(-1, 1)).squeeze(-1)
            kl = (log_p.exp() * (log_p - log_q)).sum()
            loss = loss + alpha * kl - (1.0 - alpha) * (advantages * chosen).sum()
        return loss / batch

    def value_loss():
        values = value(prefix, tokens)
        return (values - returns).pow(2).mean(), values

    def reference_logits():
        return reference(prefix, tokens)

    if variant != "eager":
        policy_loss, value_loss = torch.compile(policy_loss), torch.compile(value_loss)
        reference_logits = torch.compile(reference_logits)

    def step():
        with torch.no_grad():
            base = reference_logits()
        loss, values = value_loss()
        value_step.zero_grad(set_to_none=True)
        loss.backward()
        advantages = (returns - values.detach()).flatten()
        advantages = advantages / advantages.std().clamp(min=1e-3)
        policy_step.zero_grad(set_to_none=True)
        policy_loss(advantages, base).backward()
        value_step.step()
        policy_step.step()

    return best_seconds(sizes, step)


def check():
    """The peer against the twin on a small model: what is measured must be the same model."""
    sizes = {**DEFAULTS, "temporal": {"layers": 2, "width": 96, "heads": 3, "feed_forward": 128},
             "depth": {"layers": 2, "width": 64, "heads": 2, "feed_forward": 80}, "codebooks": [48, 80, 32],
             "prefix": 5, "prefix_codebook": 9, "frames": 17, "batch": 3}
    torch, models = build(sizes)
    policy, value = models["policy"], models["value"]
    import twin
    prefix, _ = inputs(torch, sizes)
    errors = {}
    for static in (False, True):
        tokens, scores = policy.rollout(prefix, sizes["frames"], policy.frame, static)
        exact = {name: array.double() for name, array in policy.state_dict().items()}
        logits = twin.policy_logits(exact, 3, 2, prefix, tokens)
        wanted = torch.stack([twin.log_probability(z, sizes["temperature"], tokens[..., level])
                              for level, z in enumerate(logits)], dim=-1)
        errors["masked cache" if static else "sliced cache"] = (scores - wanted).abs().max().item()
        with torch.no_grad():
            found = policy(prefix, tokens)
        errors["logits"] = max((ours.flatten() - z.flatten()).abs().max().item() for ours, z in zip(found, logits))
    exact = {name: array.double() for name, array in value.state_dict().items()}
    exact["value.weight"] = exact["value.weight"][0]
    with torch.no_grad():
        errors["values"] = (value(prefix, tokens) - twin.values(exact, 3, prefix, tokens)).abs().max().item()
    exact = {name: array.double() for name, array in models["reward"].state_dict().items()}
    with torch.no_grad():
        found = models["reward"](prefix, tokens)
        hidden = twin.temporal_stage(exact, 3, prefix, torch.cat([tokens, tokens[:, :1]], dim=1))
        pooled = torch.cat([hidden.mean(1), twin.time_variation(hidden).flatten(1)], dim=1)
        wanted = pooled @ exact["head.weight"][0] + exact["head.bias"]
        errors["rewards"] = (found - wanted).abs().max().item()
    print(json.dumps({"torch": torch.__version__, "largest_error": errors}))
    return 0 if max(errors.values()) < 1e-4 else 1


def measure(sizes):
    torch, models = build(sizes)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    seconds = {"rollout": rollout_seconds, "learner": learner_seconds, "reward": reward_seconds,
               "reward_bf16": reward_seconds, "preference": preference_seconds}[sizes["stage"]](torch, sizes, models, sizes["variant"])
    print(json.dumps({"seconds": seconds, "torch": torch.__version__}))
    return 0


def compare_variants(sizes):
    import torch
    settings = thread_settings(sizes["threads"])
    result = {"peer": "PyTorch", "torch": torch.__version__, "threads": sizes["threads"]}
    for stage in sizes["stages"]:
        variants = ["eager"]
        if hasattr(torch, "compile"):
            variants += ["compiled", "frozen"] if stage in ("rollout", "reward", "reward_bf16") else ["compiled"]
        tried = []
        for variant in variants if sizes["variants"] is None else sizes["variants"]:
            for setting in settings if sizes["settings"] is None else sizes["settings"]:
                child = subprocess.run(
                    [sys.executable, os.path.abspath(__file__),
                     json.dumps({**sizes, "stage": stage, "variant": variant})],
                    env={**os.environ, **settings[setting]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                entry = {"variant": variant, "setting": setting}
                if child.returncode == 0:
                    entry["seconds"] = json.loads(child.stdout.splitlines()[-1])["seconds"]
                else:
                    entry["error"] = (child.stderr.strip().splitlines() or ["no message"])[-1][:200]
                tried.append(entry)
        worked = [entry for entry in tried if "seconds" in entry]
        if not worked:
            raise SystemExit(f"peer.py: no variant of {stage} works: {tried[0]['error']}")
        best = min(worked, key=lambda entry: entry["seconds"])
        pairs = sizes["pair_captions"] * sizes["pair_clips"] * (sizes["pair_clips"] - 1) // 2
        units = {"reward": sizes["batch"], "reward_bf16": sizes["batch"], "preference": pairs}.get(stage, sizes["batch"] * sizes["frames"])
        result[stage] = {"per_s": units / best["seconds"], **best, "tried": tried}
    print(json.dumps(result))
    return 0


def main():
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and not sys.argv[1].startswith("{")):
        raise SystemExit(__doc__)
    options = json.loads(sys.argv[1]) if len(sys.argv) == 2 else {}
    unknown = set(options) - set(DEFAULTS) - {"stage", "variant"}
    if unknown:
        raise SystemExit(f"peer.py: unknown arguments {sorted(unknown)}; known: {sorted(DEFAULTS)}")
    sizes = {**DEFAULTS, **options}
    if sizes["check"]:
        return check()
    return measure(sizes) if "stage" in sizes else compare_variants(sizes)


if __name__ == "__main__":
    sys.exit(main())
