"""Compares what parity_models and parity_operators wrote with the twin, tensor by tensor.

    compare.py [--all] [--bf16] [--damage FACTOR] FILE.safetensors...

The twin runs in float64. A tensor passes if its norm-wise relative error is below LIMIT and at most RATIO times that
of the twin itself in float32. The latter is not asked of errors below FLOOR, a few roundings, nor of fewer than
FEW values, whose error is luck on both sides.
--bf16: what was computed in bf16 is compared with the twin under PyTorch's autocast to bf16: at most BF16_RATIO times
its error.
--damage makes every tensor wrong by that factor before comparing: the check must then fail for all of them.
"""

import argparse
import json
import math
import struct
import sys

import numpy
import torch

import twin

LIMIT = 1e-4
RATIO = 5.0
BF16_RATIO = 2.0
FLOOR = 2e-6
FEW = 8

TYPES = {"F64": "<f8", "F32": "<f4", "I32": "<i4", "U16": "<u2"}


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            array = numpy.frombuffer(data[start:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            kind = numpy.float64 if array.dtype.kind == "f" else numpy.int64
            arrays[name] = torch.from_numpy(array.astype(kind))
    return arrays


class Case:
    """The inputs of one case, floats in the type that the twin shall compute in."""

    def __init__(self, inputs, dtype):
        self.inputs = inputs
        self.dtype = dtype

    def __contains__(self, name):
        return name in self.inputs

    def __getitem__(self, name):
        value = self.inputs[name]
        return value.to(self.dtype) if value.is_floating_point() else value

    def number(self, name):
        return self.inputs[name].item()

    def leaf(self, name):
        return self[name].clone().requires_grad_()

    def parameters(self, group="parameter"):
        mark = group + "/"
        return {name[len(mark):]: self.leaf(name) for name in self.inputs if name.startswith(mark)}


def gradients(loss, parameters, prefix):
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {prefix + name: torch.zeros_like(value) if gradient is None else gradient
            for (name, value), gradient in zip(parameters.items(), found)}


def policy(case):
    parameters, out = case.parameters(), {}
    tokens, temperature = case["tokens"], case.number("temperature")
    heads = int(case.number("temporal_heads")), int(case.number("depth_heads"))
    logits = twin.policy_logits(parameters, *heads, case["prefix"], tokens)
    sampled, rl, ce = [], 0.0, 0.0
    for level, z in enumerate(logits):
        actions = tokens[:, :, level]
        out[f"logits/{level}"] = z
        sampled.append(twin.log_probability(z, case.number("sampling_temperature"), actions))
        terms = twin.policy_terms(z, case[f"reference/{level}"], temperature, actions)
        for name, term in zip(("log_probability", "entropy", "kl"), terms):
            out[f"{name}/{level}"] = term
        rl = rl + twin.policy_loss(terms, case["advantages"], case.number("policy_weight"), case.number("kl_weight"),
                                   case.number("entropy_weight"))
        out[f"cross_entropy/{level}"] = -twin.log_probability(z, 1.0, actions)
        ce = ce + out[f"cross_entropy/{level}"].mean()
    out["sampled"] = torch.stack(sampled, dim=-1)
    out.update(gradients(rl, parameters, "gradient_policy_loss/"))
    out.update(gradients(ce, parameters, "gradient_cross_entropy/"))
    return out


def value(case):
    parameters = case.parameters()
    found = twin.values(parameters, int(case.number("heads")), case["prefix"], case["tokens"])
    loss = (found - case["returns"]).pow(2).mean()
    return {"values": found, **gradients(loss, parameters, "gradient/")}


def reward(case):
    parameters = case.parameters()
    features = twin.reward_features(int(case.number("features")), case["text"], case["music"])
    found = twin.reward_scores(parameters, int(case.number("heads")), int(case.number("window")), case["prefix"],
                               case["tokens"], case["starts"], features)
    losses = twin.vote_losses(found[:4], found[1:5], parameters["preference.threshold"]).diagonal()
    return {"scores": found, "losses": losses, **gradients(losses.sum(), parameters, "gradient/")}


def learner(case):
    policies, values = case.parameters("policy"), case.parameters("value")
    tokens, returns, temperature = case["tokens"], case["returns"][:, None], case.number("temperature")
    heads = int(case.number("temporal_heads")), int(case.number("depth_heads"))
    batch, alpha = case.number("batch"), case.number("alpha")
    found = twin.values(values, heads[0], case["prefix"], tokens)
    error = returns - found
    value_loss = error.pow(2).sum() / (batch * tokens.shape[1])
    advantages = (error * case.number("advantage_scale")).detach()
    logits = twin.policy_logits(policies, *heads, case["prefix"], tokens)
    reference = twin.policy_logits(case.parameters("reference"), *heads, case["prefix"], tokens)
    columns = {name: 0.0 for name in ("kl", "kl_k1", "entropy", "policy_loss", "importance")}
    gaps = []
    for level, z in enumerate(logits):
        actions, sampled = tokens[:, :, level], case["sampled"][:, :, level]
        chosen, entropy, kl = twin.policy_terms(z, reference[level].detach(), temperature, actions)
        weight = (chosen - sampled).exp().clamp(max=case.number("importance_cap")).detach()
        terms = {"kl": kl, "kl_k1": chosen - twin.log_probability(reference[level], temperature, actions),
                 "entropy": entropy, "policy_loss": -(1.0 - alpha) * weight * advantages * chosen,
                 "importance": weight}
        for name, term in terms.items():
            columns[name] = columns[name] + term.sum(1)
        gaps.append((chosen - sampled).abs())
    loss = (columns["policy_loss"] + alpha * columns["kl"]).sum() / batch
    return {"values": found, "error": error.sum(1), "squared_error": error.pow(2).sum(1), **columns,
            "gap": torch.stack(gaps).amax(dim=(0, 2)), **gradients(value_loss, values, "gradient_value/"),
            **gradients(loss, policies, "gradient_policy/")}


def joint(case):
    parameters = case.parameters()
    text = twin.tower(parameters, "text", int(case.number("text_heads")), case["text"].unsqueeze(-1), case["lengths"])
    music = twin.tower(parameters, "music", int(case.number("music_heads")), case["music"])
    loss = twin.contrastive_loss(text, music, parameters["log_scale"].exp().clamp(max=100.0))
    return {"text_embedding": text, "music_embedding": music, "loss": loss, **gradients(loss, parameters, "gradient/")}


def optimizer(case):
    parameters = case.parameters()
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    decay = case.number("weight_decay")
    groups = [{"params": [parameter], "weight_decay": decay * case.number(f"decay/{name}")}
              for name, parameter in parameters.items()]
    adamw = torch.optim.AdamW(groups, lr=case.number("learning_rate"), eps=case.number("epsilon"),
                              betas=(case.number("beta1"), case.number("beta2")))
    norms = []
    for step in range(3):
        for name, parameter in parameters.items():
            parameter.grad = case[f"gradient{step}/{name}"].reshape(parameter.shape).clone()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), case.number("gradient_clip")))
        adamw.step()
    return {"norms": torch.stack(norms), **{f"change/{name}": parameters[name] - start[name] for name in parameters}}


def rms_norm(case):
    x, gain = case.leaf("x"), case.leaf("gain")
    y = twin.rms_norm(x, gain)
    dx, dgain = torch.autograd.grad(y, (x, gain), case["dy"])
    return {"out": y, "inverse_rms": torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5), "copy": x,
            "dx": case["dx"] + dx, "dgain": case["dgain"] + dgain}


def swiglu(case):
    gate_up = case.leaf("gate_up")
    y = twin.swiglu(gate_up)
    return {"out": y, "dgate_up": torch.autograd.grad(y, gate_up, case["dout"])[0]}


def attention(case):
    qkv, batch, causal = case.leaf("qkv"), int(case.number("batch")), bool(case.number("causal"))
    lengths = case["lengths"] if "lengths" in case else None
    rows, columns = qkv.shape
    y, log_sum = twin.attention(qkv.reshape(batch, -1, columns), int(case.number("heads")), causal, lengths, True)
    y = y.reshape(rows, -1)
    out = {"out": y, "log_sum": log_sum, "dqkv": torch.autograd.grad(y, qkv, case["dout"])[0]}
    if causal:
        out["decoded"] = y
    return out


def embedding(case):
    def look_up(table, index):
        return table[index.clamp(min=0)] * (index >= 0)[:, None]

    first = case.leaf("first")
    y = case["before"] + look_up(first, case["first_index"]) + look_up(case["second"], case["second_index"])
    return {"out": y, "dtable": case["dtable"] + torch.autograd.grad(y, first, case["dout"])[0]}


def product(case):
    x, w, dy = case["x"], case["w"], case["dy"]
    return {"y": case["y"] + x @ w.T, "dx": dy @ w, "dw": case["dw"] + dy.T @ x}


def policy_loss(case):
    logits, actions = case.leaf("logits"), case["actions"]
    reference = case["reference"] if "reference" in case else None
    terms = twin.policy_terms(logits, reference, case.number("temperature"), actions)
    kl_weight = case.number("kl_weight") if reference is not None else 0.0
    loss = twin.policy_loss(terms, case["advantages"].squeeze(-1), case.number("policy_weight"), kl_weight,
                            case.number("entropy_weight"))
    out = {"log_probability": terms[0], "scored": terms[0], "entropy": terms[1],
           "dlogits": torch.autograd.grad(loss, logits)[0]}
    if reference is not None:
        out["kl"] = terms[2]
    return out


def cross_entropy(case):
    logits = case.leaf("logits")
    losses = torch.nn.functional.cross_entropy(logits, case["targets"], reduction="none")
    return {"loss": losses, "dlogits": torch.autograd.grad(losses.sum() * case.number("weight"), logits)[0]}


def sums(case):
    x = case["x"]
    return {"columns": case["columns"] + x.sum(0), "squares": x.pow(2).sum(),
            "summed": x.reshape(-1, int(case.number("repeat")), x.shape[1]).sum(1)}


def adamw(case):
    parameter = case.leaf("parameter")
    start = parameter.detach().clone()
    optimiser = torch.optim.AdamW([parameter], lr=case.number("learning_rate"), eps=case.number("epsilon"),
                                  betas=(case.number("beta1"), case.number("beta2")),
                                  weight_decay=case.number("weight_decay"))
    for gradient in case["gradients"]:
        parameter.grad = (gradient * case.number("gradient_scale")).reshape(parameter.shape)
        optimiser.step()
    state = optimiser.state[parameter]
    return {"change": parameter - start, "first": state["exp_avg"], "second": state["exp_avg_sq"]}


CASES = {function.__name__: function for function in (
    policy, value, reward, learner, joint, optimizer, rms_norm, swiglu, attention, embedding, product, policy_loss,
    cross_entropy, sums, adamw)}


def split_cases(arrays):
    """{case: ({name: input}, {name: output})} of names CASE/in/NAME and CASE/out/NAME."""
    cases = {}
    for name, array in arrays.items():
        case, side, rest = name.split("/", 2)
        cases.setdefault(case, ({}, {}))[("in", "out").index(side)][rest] = array
    return cases


def relative_error(found, exact):
    found, exact = found.double().flatten(), exact.double().flatten()
    if found.shape != exact.shape:
        return float("inf")
    scale = exact.norm().item()
    difference = (found - exact).norm().item()
    return difference if scale == 0.0 else difference / scale


def compare_case(name, inputs, outputs, bf16):
    """Rows (our error, the baseline's, number of values, tensor) for every output of a case."""
    function = CASES[name.split(".")[0]]
    exact = {key: value.detach() for key, value in function(Case(inputs, torch.float64)).items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        rounded = {key: value.detach() for key, value in function(Case(inputs, torch.float32)).items()}
    if set(exact) != set(outputs):
        raise SystemExit(f"compare.py: {name}: on one side only: {sorted(set(exact) ^ set(outputs))}")
    return [(relative_error(outputs[key], exact[key]), relative_error(rounded[key], exact[key]), exact[key].numel(),
             f"{name}/{key}") for key in exact]


def is_bad(row, bf16):
    ours, baseline, count, _ = row
    if bf16:
        return not (ours <= max(BF16_RATIO * baseline, FLOOR) or count < FEW)
    return not (ours < LIMIT and (ours <= max(RATIO * baseline, FLOOR) or count < FEW))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.safetensors")
    parser.add_argument("--all", action="store_true", help="print every tensor, not the worst of each file")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--damage", type=float, default=0.0, metavar="FACTOR")
    options = parser.parse_args()
    torch.manual_seed(1)
    total, bad, logarithms = 0, 0, []
    limit = f"{BF16_RATIO:g} times" if options.bf16 else f"limit {LIMIT:g}, and {RATIO:g} times"
    baseline = "bf16" if options.bf16 else "float32"
    print(f"twin: PyTorch {torch.__version__}, float64; {limit} the twin in {baseline}")
    print(f"{'ours':>10} {baseline:>10}  tensor")
    for path in options.files:
        rows = []
        for name, (inputs, outputs) in split_cases(read_safetensors(path)).items():
            outputs = {key: value * (1.0 + options.damage) for key, value in outputs.items()}
            rows += compare_case(name, inputs, outputs, options.bf16)
        rows.sort(key=lambda row: (not is_bad(row, options.bf16), -row[0]))
        failed = sum(is_bad(row, options.bf16) for row in rows)
        print(f"{path}: {len(rows)} tensors, {failed} too far off")
        for row in rows if options.all else rows[:max(6, min(failed, 30))]:
            print(f"{row[0]:10.2e} {row[1]:10.2e}  {row[3]}{'  <-- too far off' if is_bad(row, options.bf16) else ''}")
        logarithms += [math.log(ours / theirs) for ours, theirs, _, _ in rows if ours > 0 and theirs > 0]
        total += len(rows)
        bad += failed
    if logarithms:
        print(f"errors are {math.exp(sum(logarithms) / len(logarithms)):.3g} times the {baseline} twin's (geometric mean)")
    print(f"{total} tensors compared, {bad} too far off")
    return 1 if bad or not total else 0


if __name__ == "__main__":
    sys.exit(main())
