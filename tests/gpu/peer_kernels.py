"""The work of every kernel done by PyTorch, one JSON object a line.

    peer_kernels.py CASES [--device cuda] [--seconds N] [--only WORD]

CASES is what `bench_kernels --list` prints: the same names and sizes. Times are taken as there: the median of several
runs between events, each with caches that hold other data. Where PyTorch has several ways they are all tried, and the
fastest is named. What is fused by hand in our kernels is fused by torch.compile here.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

CACHE_BYTES = 256 << 20
SECONDS_OF_A_CASE = 0.15
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}
# What the targets look at comes first; what needs the compiler comes last.
ORDER = ["attention_decode", "attention_forward", "adamw", "policy_loss", "attention_backward", "cross_entropy", "rms_norm",
         "rms_norm_backward", "product", "attention_short", "log_probability", "sample"]


class Stopwatch:
    def __init__(self, device):
        self.on_card = device == "cuda"
        self.cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device) if self.on_card else None

    def several(self, work, runs):
        """The median in milliseconds."""
        if not self.on_card:
            times = []
            for _ in range(runs):
                start = time.perf_counter()
                work()
                times.append(1e3 * (time.perf_counter() - start))
            return statistics.median(times)
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        for begin, end in events:
            self.cache.zero_()
            begin.record()
            work()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in events)

    def measure(self, work):
        for _ in range(2):  # the first compiles
            first = self.several(work, 1)
        return self.several(work, min(max(int(SECONDS_OF_A_CASE * 1e3 / max(first, 1e-3)), 5), 30))


def compiled(function):
    return torch.compile(function, dynamic=False)


class Work:
    """For each name a method that returns {way: work}."""

    def __init__(self, device):
        self.device = device

    def random(self, *shape, dtype, scale=1.0):
        return (torch.rand(*shape, device=self.device, dtype=torch.float32) * (2 * scale) - scale).to(dtype)

    def indices(self, count, below):
        return torch.randint(below, (count,), device=self.device)

    # Attention.
    def packed(self, c, dtype):
        qkv = self.random(c["batch"], c["sequence"], 3, c["heads"], c["head_dim"], dtype=dtype)
        return [part.transpose(1, 2) for part in qkv.unbind(2)]

    def per_backend(self, make, names=BACKENDS):
        ways = {}
        for name in names:
            def work(backend=BACKENDS[name], inner=make(name)):
                with sdpa_kernel(backend):
                    inner()
            ways[name] = work
        return ways

    def attention_forward(self, c, dtype):
        q, k, v = self.packed(c, dtype)
        names = [name for name in BACKENDS if name != "math" or c["sequence"] <= 2048]
        return self.per_backend(lambda name: lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), names)

    def attention_backward(self, c, dtype):
        q, k, v = (part.detach().requires_grad_() for part in self.packed(c, dtype))
        dout = self.random(c["batch"], c["sequence"], c["heads"], c["head_dim"], dtype=dtype).transpose(1, 2)
        ways = {}
        for name, backend in BACKENDS.items():
            if name == "math" and c["sequence"] > 2048:
                continue
            for deterministic in (False, True) if name in ("flash", "cudnn") else (False,):
                def work(backend=backend, deterministic=deterministic, kept=[]):
                    torch.use_deterministic_algorithms(deterministic)
                    try:
                        if not kept:
                            with sdpa_kernel(backend):
                                kept.append(F.scaled_dot_product_attention(q, k, v, is_causal=True))
                        torch.autograd.grad(kept[0], (q, k, v), dout, retain_graph=True)
                    finally:
                        torch.use_deterministic_algorithms(False)
                ways[name + (" deterministic" if deterministic else "")] = work
        return ways

    def attention_decode(self, c, dtype):
        heads = (c["batch"], c["heads"])
        q = self.random(*heads, 1, c["head_dim"], dtype=dtype)
        k, v = (self.random(*heads, c["sequence"], c["head_dim"], dtype=dtype) for _ in range(2))
        return self.per_backend(lambda name: lambda: F.scaled_dot_product_attention(q, k, v))

    def attention_short_forward(self, c, dtype):
        q, k, v = self.packed(c, dtype)
        return self.per_backend(lambda name: lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))

    attention_short_backward = attention_backward

    # Norms.
    def forward_of(self, function, *arguments):
        return {"eager": lambda: function(*arguments), "compiled": lambda f=compiled(function): f(*arguments)}

    def backward_of(self, function, inputs, dout):
        ways = {}
        for name, f in (("eager", function), ("compiled", compiled(function))):
            def work(f=f, kept=[]):
                if not kept:
                    kept.append(f(*inputs))
                torch.autograd.grad(kept[0], [x for x in inputs if x.requires_grad], dout, retain_graph=True)
            ways[name] = work
        return ways

    @staticmethod
    def normed(c, x, gain):
        """With "mixed" storage the residual stream and gains are f32, the result is stored in bf16."""
        out = F.rms_norm(x, x.shape[-1:], gain, 1e-5)
        return out.to(torch.bfloat16) if c["storage"] == "mixed" else out

    def rms_norm(self, c, dtype):
        x, added = (self.random(c["rows"], c["width"], dtype=dtype) for _ in range(2))
        gain = self.random(c["width"], dtype=dtype)

        def function(x, added, gain):
            total = x + added
            return total, self.normed(c, total, gain)
        return self.forward_of(function, x, added, gain)

    def rms_norm_backward(self, c, dtype):
        x, gain = self.random(c["rows"], c["width"], dtype=dtype), self.random(c["width"], dtype=dtype)
        dout = self.random(c["rows"], c["width"], dtype=torch.bfloat16 if c["storage"] == "mixed" else dtype)
        return self.backward_of(lambda x, gain: self.normed(c, x, gain), [x.requires_grad_(), gain.requires_grad_()], dout)

    # Activations and rotation.
    @staticmethod
    def gated(gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def swiglu(self, c, dtype):
        return self.forward_of(self.gated, self.random(c["rows"], 2 * c["width"], dtype=dtype))

    def swiglu_backward(self, c, dtype):
        return self.backward_of(self.gated, [self.random(c["rows"], 2 * c["width"], dtype=dtype).requires_grad_()],
                                self.random(c["rows"], c["width"], dtype=dtype))

    def rotary_rows(self, c, dtype):
        x = self.random(c["batch"], c["sequence"], 3, c["heads"], c["head_dim"], dtype=dtype)
        cosine, sine = (self.random(c["sequence"], 1, 1, c["head_dim"] // 2, dtype=torch.float32) for _ in range(2))

        def function(x, cosine, sine):
            first, second = x[:, :, :2].float().chunk(2, dim=-1)
            turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
            x[:, :, :2] = turned.to(x.dtype)
        return self.forward_of(function, x, cosine, sine)

    def fill_cache(self, c, dtype):
        x = self.random(c["batch"], c["sequence"], 3, c["heads"], c["head_dim"], dtype=dtype)
        cache = torch.empty(2, c["batch"], c["heads"], c["sequence"], c["head_dim"], dtype=dtype, device=self.device)
        return {"eager": lambda: cache.copy_(x[:, :, 1:].permute(2, 0, 3, 1, 4))}

    # Tokens.
    def embedding_sum(self, c, dtype):
        tables = [self.random(c["entries"], c["width"], dtype=dtype) for _ in range(c["tables"])]
        index = [self.indices(c["rows"], c["entries"]) for _ in tables]

        def function(tables, index):
            parts = [F.embedding(i, table) for i, table in zip(index, tables)]
            return sum(parts[1:], parts[0])
        return self.forward_of(function, tables, index)

    def embedding_backward(self, c, dtype):
        dout, index = self.random(c["rows"], c["width"], dtype=dtype), self.indices(c["rows"], c["entries"])
        return {"eager": lambda: torch.ops.aten.embedding_dense_backward(dout, index, c["entries"], -1, False)}

    def log_probability(self, c, dtype):
        logits, tokens = self.random(c["rows"], c["codebook"], dtype=dtype, scale=4), self.indices(c["rows"], c["codebook"])

        def function(logits, tokens):
            return (logits.float() * (1 / 0.99)).log_softmax(-1).gather(-1, tokens[:, None])
        return self.forward_of(function, logits, tokens)

    def policy_loss(self, c, dtype):
        logits, reference = (self.random(c["rows"], c["codebook"], dtype=dtype, scale=4) for _ in range(2))
        actions, advantages = self.indices(c["rows"], c["codebook"]), self.random(c["rows"], dtype=torch.float32)
        logits.requires_grad_()

        def function(logits, reference):
            log_p = (logits.float() * (1 / 0.99)).log_softmax(-1)
            log_q = (reference.float() * (1 / 0.99)).log_softmax(-1)
            chosen = log_p.gather(-1, actions[:, None]).squeeze(-1)
            p = log_p.exp()
            kl, entropy = (p * (log_p - log_q)).sum(-1), -(p.detach() * log_p.detach()).sum(-1)
            return (0.1 * kl - 0.9 * advantages * chosen).sum(), chosen.detach(), entropy, kl.detach()
        fast = compiled(function)
        return {"compiled": lambda: torch.autograd.grad(fast(logits, reference)[0], logits)}

    def importance(self, c, dtype):
        scored, sampled, advantages = (self.random(c["rows"], dtype=dtype) for _ in range(3))

        def function(scored, sampled, advantages):
            ratio = (scored - sampled).exp()
            kept = torch.where((advantages > 0) & (ratio > 1.2) | (advantages < 0) & (ratio < 0.8), 0.0, ratio)
            return ratio, advantages * kept.clamp(max=2.0)
        return self.forward_of(function, scored, sampled, advantages)

    def cross_entropy(self, c, dtype):
        logits = self.random(c["rows"], c["codebook"], dtype=dtype, scale=4).requires_grad_()
        targets = self.indices(c["rows"], c["codebook"])

        def function(logits):
            return F.cross_entropy(logits.float(), targets, reduction="sum")
        ways = {}
        for name, f in (("eager", lambda x: F.cross_entropy(x, targets, reduction="sum")), ("compiled", compiled(function))):
            ways[name] = lambda f=f: torch.autograd.grad(f(logits), logits)
        return ways

    def sample(self, c, dtype):
        logits = self.random(c["rows"], c["codebook"], dtype=dtype, scale=4)
        cut = "top-k" in c["name"]

        def function(logits):
            log_p = (logits.float() * (1 / 0.99)).log_softmax(-1)
            p, order = log_p.exp(), None
            if cut:
                p, order = p.topk(min(50, c["codebook"]), dim=-1)
                p = torch.where(p.cumsum(-1) - p < 0.9 * p.sum(-1, keepdim=True), p, 0.0)
            token = (p / torch.empty_like(p).exponential_(1.0)).argmax(-1, keepdim=True)
            token = token if order is None else order.gather(-1, token)
            return token, log_p.gather(-1, token)
        return self.forward_of(function, logits)

    # The optimiser's step.
    def adamw(self, c, dtype):
        parameter = torch.nn.Parameter(self.random(c["parameters"], dtype=torch.float32))
        parameter.grad = self.random(c["parameters"], dtype=torch.float32, scale=1e-3)
        optimiser = torch.optim.AdamW([parameter], lr=1e-5, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        return {"fused": optimiser.step}

    def sum_squares(self, c, dtype):
        x = self.random(c["parameters"], dtype=torch.float32)
        return {"eager": lambda: torch.linalg.vector_norm(x)}

    def all_finite(self, c, dtype):
        return self.forward_of(lambda x: torch.isfinite(x).all(), self.random(c["parameters"], dtype=torch.float32))

    def round_to_bf16(self, c, dtype):
        x = self.random(c["parameters"], dtype=torch.float32)
        return {"eager": lambda: x.to(torch.bfloat16)}

    # Rows.
    def copy_rows(self, c, dtype):
        x = self.random(c["rows"], c["width"], dtype=dtype)
        out = torch.empty_like(x)
        return {"eager": lambda: out.copy_(x)}

    def repeat_rows(self, c, dtype):
        x = self.random(c["rows"], c["width"], dtype=dtype)
        return {"eager": lambda: x.repeat_interleave(c["repeat"], dim=0)}

    def sum_repeated(self, c, dtype):
        x = self.random(c["rows"], c["repeat"], c["width"], dtype=dtype)
        return {"eager": lambda: x.sum(1)}

    def column_sums(self, c, dtype):
        x = self.random(c["rows"], c["width"], dtype=dtype)
        return {"eager": lambda: x.sum(0)}

    def row_dot(self, c, dtype):
        x, vector = self.random(c["rows"], c["width"], dtype=dtype), self.random(c["width"], dtype=dtype)
        return {"eager": lambda: x @ vector}

    def mean_pool(self, c, dtype):
        x = self.random(c["batch"], c["sequence"], c["width"], dtype=dtype)
        return {"eager": lambda: x.mean(1)}

    def normalize_rows(self, c, dtype):
        return self.forward_of(lambda x: F.normalize(x, dim=-1), self.random(c["rows"], c["width"], dtype=dtype))

    # Products.
    def product_forward(self, c, dtype):
        x, w = (self.random(c[n], c["inputs"], dtype=dtype) for n in ("rows", "outputs"))
        return {"cuBLAS": lambda: x @ w.T}

    product_decode = product_forward

    def product_backward_data(self, c, dtype):
        dy, w = self.random(c["rows"], c["outputs"], dtype=dtype), self.random(c["outputs"], c["inputs"], dtype=dtype)
        return {"cuBLAS": lambda: dy @ w}

    def product_backward_weight(self, c, dtype):
        dy, x = (self.random(c["rows"], c[n], dtype=dtype) for n in ("outputs", "inputs"))
        return {"cuBLAS": lambda: dy.T @ x}


def first_line(error):
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def run_case(c, work, watch):
    make = getattr(work, c["name"].split(",")[0].split(" ")[0], None)
    result = {"name": c["name"], "config": c["config"]}
    if make is None:
        return None
    dtype = torch.bfloat16 if c["storage"] == "bf16" else torch.float32
    times, failed = {}, {}
    try:
        ways = make(c, dtype)
    except Exception as error:
        return {**result, "not_run": first_line(error)}
    for way, run in ways.items():
        try:
            times[way] = watch.measure(run)
        except Exception as error:  # a backend that lacks this case says so
            failed[way] = first_line(error)
    if not times:
        return {**result, "not_run": next(iter(failed.values()), "no way"), "failed": failed}
    # A deterministic way that is no slower is the default's own.
    fastest = min(times, key=times.get)
    return {**result, "peer": fastest, "milliseconds": times[fastest], "tried": times, "failed": failed}


def rank(c):
    return next((i for i, name in enumerate(ORDER) if c["name"].startswith(name)), len(ORDER))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    start = time.perf_counter()
    with open(options.cases) as file:
        cases = [json.loads(line) for line in file]
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no card")
        return 77
    import torch._functorch.config
    torch._functorch.config.donated_buffer = False  # backward runs several times
    torch._dynamo.config.cache_size_limit = 64
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.utils.deterministic.fill_uninitialized_memory = False  # which deterministic algorithms do not need
    print(json.dumps({"name": "PyTorch", "torch": torch.__version__, "cuda": torch.version.cuda,
                      "cudnn": torch.backends.cudnn.version()}), flush=True)
    watch, work = Stopwatch(options.device), Work(options.device)
    for c in sorted(cases, key=rank):
        if options.only not in c["name"]:
            continue
        if time.perf_counter() - start > options.seconds:
            result = {"name": c["name"], "config": c["config"], "not_run": "no time was left"}
        else:
            result = run_case(c, work, watch)
            torch._dynamo.reset()
            if options.device == "cuda":
                torch.cuda.empty_cache()
        if result is not None:
            print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
