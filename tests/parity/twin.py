"""The models a second time, in plain PyTorch, as readable as they can be: the oracle of the parity tests.

Parameters are a dictionary from the names of the C program's tensors to torch tensors; a weight is [outputs, inputs].
Nothing here is written for speed. Works on PyTorch 1.13 and newer.
"""

import torch
import torch.nn.functional as F


def rms_norm(x, gain, epsilon=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * gain


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate(x):
    """Rotary positions on [batch, heads, sequence, head_dim]; the pairs are (i, i + head_dim / 2)."""
    sequence, half = x.shape[-2], x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(sequence, dtype=torch.float64)[:, None] * rates
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def attention(qkv, heads, causal, lengths=None, want_log_sum=False):
    """qkv [batch, sequence, 3 * width] is queries, keys, values; keys at or beyond lengths [batch] do not exist."""
    batch, sequence, _ = qkv.shape
    q, k, v = (part.reshape(batch, sequence, heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = rotate(q) @ rotate(k).transpose(-1, -2) / q.shape[-1] ** 0.5  # [batch, heads, query, key]
    if causal:
        hidden = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    if lengths is not None:
        hidden = torch.arange(sequence) >= lengths[:, None]  # [batch, key]
        scores = scores.masked_fill(hidden[:, None, None, :], float("-inf"))
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, sequence, -1)
    return (out, scores.logsumexp(-1)) if want_log_sum else out


def transformer(parameters, name, x, heads, causal, lengths=None):
    """Pre-norm blocks on x [batch, sequence, width], normalised at the end."""

    def weight(of):
        return parameters[f"{name}.{of}.weight"]

    layer = 0
    while f"{name}.layers.{layer}.norm1.weight" in parameters:
        at = f"layers.{layer}"
        qkv = rms_norm(x, weight(f"{at}.norm1")) @ weight(f"{at}.qkv").T
        x = x + attention(qkv, heads, causal, lengths) @ weight(f"{at}.out").T
        gate_up = rms_norm(x, weight(f"{at}.norm2")) @ weight(f"{at}.gate_up").T
        x = x + swiglu(gate_up) @ weight(f"{at}.down").T
        layer += 1
    return rms_norm(x, weight("norm"))


def temporal_stage(parameters, heads, prefix, tokens):
    """prefix [batch, P], tokens [batch, frames, levels] to [batch, frames, width]: row t has seen frames before t."""
    batch, frames, levels = tokens.shape
    positions = []
    for i in range(prefix.shape[1]):
        table = parameters["prefix.embedding.weight"]
        entries = table.shape[0] // prefix.shape[1]
        positions.append(table[i * entries + prefix[:, i]])
    positions.append(parameters["begin.weight"].expand(batch, -1))
    for frame in range(frames - 1):
        positions.append(sum(parameters[f"temporal.embedding.{level}.weight"][tokens[:, frame, level]]
                             for level in range(levels)))
    x = torch.stack(positions, dim=1)
    return transformer(parameters, "temporal", x, heads, causal=True)[:, prefix.shape[1]:]


def policy_logits(parameters, temporal_heads, depth_heads, prefix, tokens):
    """Teacher-forced logits, a list over levels of [batch, frames, codebook]."""
    batch, frames, levels = tokens.shape
    condition = temporal_stage(parameters, temporal_heads, prefix, tokens) @ parameters["depth.input.weight"].T
    inputs = []
    for level in range(levels):
        x = condition + parameters["depth.level.weight"][level]
        if level > 0:
            x = x + parameters[f"depth.embedding.{level - 1}.weight"][tokens[:, :, level - 1]]
        inputs.append(x.reshape(batch * frames, -1))
    hidden = transformer(parameters, "depth", torch.stack(inputs, dim=1), depth_heads, causal=True)
    return [(hidden[:, level] @ parameters[f"head.{level}.weight"].T).reshape(batch, frames, -1)
            for level in range(levels)]


def log_probability(logits, temperature, actions):
    return (logits / temperature).log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def policy_terms(logits, reference, temperature, actions):
    """Per row: log-probability of the action, entropy, exact KL(policy || reference)."""
    log_p = (logits / temperature).log_softmax(-1)
    log_q = log_p.detach() if reference is None else (reference / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return chosen, -(log_p.exp() * log_p).sum(-1), (log_p.exp() * (log_p - log_q)).sum(-1)


def policy_loss(terms, advantages, policy_weight, kl_weight, entropy_weight):
    chosen, entropy, kl = terms
    return (-policy_weight * advantages * chosen + kl_weight * kl - entropy_weight * entropy).sum()


def values(parameters, heads, prefix, tokens):
    """[batch, frames]: the value network's estimate before each frame."""
    hidden = temporal_stage(parameters, heads, prefix, tokens)
    return hidden @ parameters["value.weight"] + parameters["value.bias"]


def reward_scores(parameters, heads, window, prefix, tokens, starts, features):
    """[batch] scores of the `window` frames from starts [batch] on in tokens [batch, frames, levels]; features
    [batch, count] or None."""
    clips = torch.stack([clip[start:start + window] for clip, start in zip(tokens, starts.tolist())])
    unread = torch.zeros_like(clips[:, :1])  # the temporal stage never sees its last frame
    hidden = temporal_stage(parameters, heads, prefix, torch.cat([clips, unread], dim=1))
    scores = hidden.mean(1) @ parameters["head.pooled.weight"] + parameters["head.bias"]
    scores = scores + time_variation(hidden).flatten(1) @ parameters["head.variation.weight"]
    return scores if features is None else scores + features @ parameters["head.features.weight"]


def reward_features(kind, text, music):
    """What the head reads of the joint embedding: 0 nothing, 1 the music, 2 also music times text."""
    width = music.shape[1]
    return [None, music * width ** 0.5, torch.cat([music * width ** 0.5, music * text * width], dim=1)][kind]


def vote_losses(a, b, threshold):
    """Negative log-likelihoods [pairs, 4] of A, B, tie and both bad."""
    both = F.logsigmoid(threshold[1] - a) + F.logsigmoid(threshold[1] - b)
    davidson = torch.stack([(a - b) / 2, (b - a) / 2, threshold[0].expand(a.shape)], dim=1).log_softmax(1)
    return -torch.cat([torch.log(-torch.expm1(both))[:, None] + davidson, both[:, None]], dim=1)


def autocorrelation(x, lags, epsilon=1e-5):
    """Of x [batch, sequence, channels] over the sequence: [batch, lags, channels] from lag 1 on."""
    x = x - x.mean(1, keepdim=True)
    energy = x.pow(2).sum(1) + x.shape[1] * epsilon
    return torch.stack([(x[:, lag:] * x[:, :-lag]).sum(1) / energy for lag in range(1, lags + 1)], dim=1)


def time_variation(x, scale=10.0, epsilon=1e-3):
    """Of x [batch, sequence, channels] over the sequence: [batch, 2, channels], log variance and log mean squared step."""
    around, along = x.var(1, unbiased=False), x.diff(dim=1).pow(2).mean(1)
    return torch.log(scale * torch.stack([around, along], dim=1) + epsilon)


def tower(parameters, name, heads, tokens, lengths=None):
    """One side of the joint embedding: tokens [batch, positions, tables] to unit rows [batch, output]."""
    x = sum(parameters[f"{name}.embedding.{table}.weight"][tokens[:, :, table]] for table in range(tokens.shape[2]))
    hidden = transformer(parameters, name, x, heads, causal=False, lengths=lengths)
    if lengths is not None:
        exists = (torch.arange(tokens.shape[1]) < lengths[:, None]).to(hidden.dtype)  # [batch, positions]
        pooled = (hidden * exists[:, :, None]).sum(1) / lengths[:, None]
    else:
        pooled = hidden.mean(1)
    projected = pooled @ parameters[f"{name}.projection.weight"].T
    if f"{name}.rhythm.channels.weight" in parameters:
        channels, weight = parameters[f"{name}.rhythm.channels.weight"], parameters[f"{name}.rhythm.projection.weight"]
        heard = autocorrelation(x @ channels.T, weight.shape[1] // channels.shape[0])
        projected = projected + heard.flatten(1) @ weight.T
    if f"{name}.variation.projection.weight" in parameters:
        projected = projected + time_variation(x).flatten(1) @ parameters[f"{name}.variation.projection.weight"].T
    return projected / projected.norm(dim=-1, keepdim=True)


def contrastive_loss(first, second, scale):
    logits, right = scale * first @ second.T, torch.arange(first.shape[0])
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
