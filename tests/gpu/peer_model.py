"""A learner step and rollouts of the medium model in PyTorch, as its users would write them for speed on a card.

    peer_model.py learner|rollout RUN.yaml [--device cuda] [--batch N] [--seconds N]

The models are those of tests/parity/peer.py. Weights are f32 under autocast to bf16 where something is learnt, bf16
where it is not. torch.compile takes a transformer block at a time, so that compiling takes seconds; rollouts run from a
CUDA graph of one frame, which leaves the host nothing to do. Prints one JSON object a line.
"""

import argparse
import json
import os
import re
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
import peer  # noqa: E402


def sizes_of(path):
    """What the models need of a run file whose transformers are one line each."""
    with open(path) as file:
        text = file.read()

    def transformer(name):
        found = re.search(name + r": \{layers: (\d+), width: (\d+), heads: (\d+)\}", text)
        layers, width, heads = map(int, found.groups())
        return {"layers": layers, "width": width, "heads": heads, "feed_forward": (8 * width // 3 + 63) // 64 * 64}

    def number(section, key):
        return int(re.search(r"(?m)^" + section + r":\n(?:  .*\n)*?  " + key + r": (\d+)", text).group(1))

    return {**peer.DEFAULTS, "temporal": transformer("temporal"), "depth": transformer("depth"),
            "codebooks": [1024] * (1 + number("model", "coarse_levels")), "prefix": number("model", "prefix"),
            "prefix_codebook": number("model", "prefix_codebook"), "frames": number("train", "frames"),
            "batch": number("train", "batch")}


class Clock:
    def __init__(self, device):
        self.device = device

    def seconds(self, work):
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


def compile_blocks(model):
    for module in model.modules():
        if type(module).__name__ == "Block":
            module.compile(dynamic=False)


def learner(sizes, device, compiled, clock, repeats):
    """Seconds of a step: reference forward, policy and value forward and backward, exact KL, AdamW on both."""
    _, models = peer.build(sizes)
    policy, reference, value = models["policy"], models["reference"], models["value"]
    reference.requires_grad_(False).to(torch.bfloat16)
    prefix, tokens = peer.inputs(torch, sizes)
    policy_step, value_step = (torch.optim.AdamW(m.parameters(), lr=1e-5, betas=(0.9, 0.99), fused=True)
                               for m in (policy, value))
    returns = torch.rand(sizes["batch"], 1).expand(-1, sizes["frames"])
    alpha, inverse_temperature = sizes["alpha"], 1.0 / sizes["temperature"]

    def level_loss(logits, base, actions, advantages):
        log_p = (logits.float() * inverse_temperature).log_softmax(-1)
        log_q = (base.float() * inverse_temperature).log_softmax(-1)
        chosen = log_p.gather(-1, actions[:, None]).squeeze(-1)
        return alpha * (log_p.exp() * (log_p - log_q)).sum() - (1.0 - alpha) * (advantages * chosen).sum()

    if compiled:
        for model in (policy, reference, value):
            compile_blocks(model)
        level_loss = torch.compile(level_loss, dynamic=False)

    def step():
        with torch.no_grad():
            base = reference(prefix, tokens)
        with torch.autocast(device, torch.bfloat16):
            values = value(prefix, tokens)
        values = values.float()
        (values - returns).pow(2).mean().backward()
        advantages = (returns - values.detach()).flatten()
        advantages = advantages / advantages.std().clamp(min=1e-3)
        with torch.autocast(device, torch.bfloat16):
            logits = policy(prefix, tokens)
        loss = sum(level_loss(z, q, tokens[..., level].reshape(-1), advantages)
                   for level, (z, q) in enumerate(zip(logits, base)))
        (loss / sizes["batch"]).backward()
        for optimiser, model in ((value_step, value), (policy_step, policy)):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    for _ in range(2):  # the first compiles
        step()
    return min(clock.seconds(step) for _ in range(repeats))


def decode_block(block, x, cosine, sine, keys, values, position, mask):
    """One position of one block over a cache of fixed size."""
    q, k, v = block.queries_keys_values(x, cosine, sine)
    keys.index_copy_(2, position, k)
    values.index_copy_(2, position, v)
    return block.finish(x, F.scaled_dot_product_attention(q, keys, values, attn_mask=mask))


class StaticRollout:
    """One frame whose tensors never move: positions and tokens are on the device."""

    def __init__(self, policy, sizes, batch, compiled):
        self.policy, self.block = policy, decode_block
        if compiled:
            self.block = torch.compile(decode_block, dynamic=False)
            self.draw = torch.compile(self.draw, dynamic=False)
        self.cache, self.depth_cache = policy.temporal.new_cache(batch), policy.depth.new_cache(batch)
        self.x = torch.zeros(batch, 1, sizes["temporal"]["width"])
        self.position = torch.tensor([sizes["prefix"] + 1])
        self.levels = [torch.tensor([level]) for level in range(policy.levels)]
        self.tokens = torch.zeros(batch, sizes["prefix"] + sizes["frames"] + 1, policy.levels, dtype=torch.long)
        self.scores = torch.zeros(self.tokens.shape, dtype=torch.float32)
        self.inverse_temperature = 1.0 / sizes["temperature"]

    def stack(self, stack, x, position, cache):
        cosine, sine = stack.cosine.index_select(0, position), stack.sine.index_select(0, position)
        mask = stack.visible.index_select(0, position)
        for block, both in zip(stack.layers, cache):
            x = self.block(block, x, cosine, sine, both[0], both[1], position, mask)
        return stack.norm(x)

    def draw(self, logits):
        log_p = (logits.float() * self.inverse_temperature).log_softmax(-1)
        token = (log_p.exp() / torch.empty_like(log_p).exponential_(1.0)).argmax(-1, keepdim=True)
        return token, log_p.gather(-1, token)

    def frame(self):
        policy = self.policy
        condition = policy.depth.input(self.stack(policy.temporal, self.x, self.position, self.cache))
        drawn, scores = [], []
        for level, place in enumerate(self.levels):
            x = condition + policy.depth.level.weight[level]
            if level > 0:
                x = x + policy.depth.embedding[level - 1](drawn[-1])
            hidden = self.stack(policy.depth, x, place, self.depth_cache)
            token, score = self.draw(policy.head[level](hidden[:, 0]))
            drawn.append(token)
            scores.append(score)
        tokens = torch.cat(drawn, dim=-1)
        self.tokens.index_copy_(1, self.position, tokens[:, None])
        self.scores.index_copy_(1, self.position, torch.cat(scores, dim=-1)[:, None])
        self.x.copy_(policy.embed(tokens)[:, None])
        self.position.add_(1)


@torch.no_grad()
def rollout(sizes, device, way, clock, seconds):
    """Seconds of a whole rollout, from frames at positions spread over it: a frame's cost grows evenly with its
    position where the cache is sliced, and is the same everywhere where it is not."""
    torch.set_default_dtype(torch.bfloat16)  # also that of the caches
    _, models = peer.build(sizes)
    policy = models["policy"].requires_grad_(False).to(torch.bfloat16)
    del models
    first, frames = sizes["prefix"] + 1, sizes["frames"]
    if way == "eager":
        cache, depth_cache = policy.temporal.new_cache(sizes["batch"]), policy.depth.new_cache(sizes["batch"])
        x = torch.zeros(sizes["batch"], 1, sizes["temporal"]["width"])

        def at(position):
            policy.frame(x, position, cache, depth_cache)
        at(first)
        once = clock.seconds(lambda: at(first + frames // 2))
        count = min(max(int(seconds / max(once, 1e-4)), 4), frames - 1)
        positions = [first + i * (frames - 1) // count for i in range(count)]
        return clock.seconds(lambda: [at(position) for position in positions]) / count * frames
    static = StaticRollout(policy, sizes, sizes["batch"], compiled=True)
    static.frame()
    run = static.frame
    if device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            static.frame()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            static.frame()
        run = graph.replay
    run()
    once = clock.seconds(run)
    static.position.fill_(first)
    count = min(max(int(seconds / max(once, 1e-4)), 4), frames - 1)
    return clock.seconds(lambda: [run() for _ in range(count)]) / count * frames


def check(sizes):
    """The static rollout against the parity peer's teacher-forced logits: what is measured must be the same model."""
    _, models = peer.build(sizes)
    policy = models["policy"].requires_grad_(False)
    static = StaticRollout(policy, sizes, sizes["batch"], compiled=True)
    prefix, _ = peer.inputs(torch, sizes)
    with torch.no_grad():
        policy.temporal(policy.start(prefix), static.cache)
        # A rollout draws its first frame from the prefix; here that position is decoded like all others.
        static.x.copy_(policy.start(prefix)[:, -1:])
        static.position.fill_(sizes["prefix"])
        for _ in range(sizes["frames"]):
            static.frame()
        tokens = static.tokens[:, sizes["prefix"]:sizes["prefix"] + sizes["frames"]]
        found = static.scores[:, sizes["prefix"]:sizes["prefix"] + sizes["frames"]]
        logits = policy(prefix, tokens)
    wanted = torch.stack([(z / sizes["temperature"]).log_softmax(-1).gather(-1, tokens[..., level].reshape(-1, 1))
                          .reshape(tokens.shape[:2]) for level, z in enumerate(logits)], dim=-1)
    error = (found - wanted).abs().max().item()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps({"largest_error": error, "graphs": graphs}))
    return 0 if error < 1e-4 else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["learner", "rollout", "check"])
    parser.add_argument("run_file")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each timed rollout")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no card")
        return 77
    torch.set_default_device(options.device)
    torch._dynamo.config.cache_size_limit = 64
    sizes = sizes_of(options.run_file)
    sizes["batch"], sizes["frames"] = options.batch or sizes["batch"], options.frames or sizes["frames"]
    if options.what == "check":
        return check(sizes)
    clock = Clock(options.device)
    ways = {"learner": ["compiled", "eager"], "rollout": ["static cache, compiled, CUDA graph", "eager"]}[options.what]
    name = os.path.splitext(os.path.basename(options.run_file))[0]
    for way in ways:
        result = {"name": options.what, "config": f"{name}, batch {sizes['batch']}, {sizes['frames']} frames",
                  "peer": f"PyTorch {torch.__version__}, {way}"}
        try:
            if options.what == "learner":
                seconds = learner(sizes, options.device, way == "compiled", clock, 3)
            else:
                seconds = rollout(sizes, options.device, way, clock, options.seconds)
            result.update(seconds=seconds, per_s=sizes["batch"] * sizes["frames"] / seconds, unit="frames/s")
        except Exception as error:
            result["not_run"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        torch.set_default_dtype(torch.float32)
        if options.device == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
