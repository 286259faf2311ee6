"""The update rules on arrays: scaling, weight decay and update in one pass over memory.

All rules use, element by element on flat arrays,

    g = scale * grad + l2 * w + l1 * sign(w)

with the weights w, the summed gradient ``grad``, scale = (clipping factor) / iter_size, and the weight decay of this
parameter as l2 or l1. ``rate`` is the local rate, learning rate x lr_mult. Where ``mean`` is not empty it is the running
mean of the gradients, mean = memory * mean + (1 - memory) * grad, which replaces grad for weights that are zero.

Each kernel processes a range of elements in chunks. It slices the arrays first, because only loops from zero over whole
arrays are vectorised, and, if they write to several arrays, only those over at most four. ``update_prox`` fuses the
momentum rules with the prox of groups.

The adaptive rules leave the step size of each element in ``grad`` when ``keep_steps`` is set: a proximal step in the
same metric needs it.

Ref: Caffe's solvers (sgd_solver.cpp and its neighbours), whose formulas these are
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.compiler import sums_kernel

SUM_BLOCK = 1 << 14
"""Block size of sums over a whole array: sums over such blocks are added, so that the result does not depend on
threads."""

CHUNK = 1 << 13
"""Elements of a chunk, which several loops process in turn while it is in a core's own cache."""


@sums_kernel
def _gradient(w, grad, mean, i, memory, rest, scale, l2, l1):
    """The regularised gradient of element i; rest = 1 - memory.  [overwrites mean]"""
    g = grad[i]
    if mean.size:
        m = memory * mean[i] + rest * g
        mean[i] = m
        g = m if w[i] == 0 else g
    return scale * g + l2 * w[i] + l1 * np.sign(w[i])


@sums_kernel
def _sgd(w, grad, h, mean, memory, rest, scale, l2, l1, rate, momentum):
    """h = momentum * h + rate * g; w -= h.  [overwrites w, h, mean]"""
    for i in range(w.size):
        step = momentum * h[i] + rate * _gradient(w, grad, mean, i, memory, rest, scale, l2, l1)
        h[i] = step
        w[i] -= step


@sums_kernel
def _descend(w, grad, h, mean, memory, rest, scale, l2, l1, rate, momentum):
    """w -= rate * g; h = momentum * h + rate * g: Nesterov's step without its look ahead.  [overwrites w, h, mean]"""
    for i in range(w.size):
        step = rate * _gradient(w, grad, mean, i, memory, rest, scale, l2, l1)
        h[i] = momentum * h[i] + step
        w[i] -= step


@sums_kernel
def step(w, grad, h, mean, memory, rest, scale, l2, l1, rate, momentum, nesterov):
    """SGD's step with momentum, or Nesterov's without its look ahead.  [overwrites w, h, mean]"""
    if nesterov:
        _descend(w, grad, h, mean, memory, rest, scale, l2, l1, rate, momentum)
    else:
        _sgd(w, grad, h, mean, memory, rest, scale, l2, l1, rate, momentum)


@sums_kernel
def _look_ahead(w, h, momentum):
    """w -= momentum * h.  [overwrites w]"""
    for i in range(w.size):
        w[i] -= momentum * h[i]


@sums_kernel
def _shrink_elements(w, h, threshold):
    """The prox of threshold * sum of |w|; h gains what w loses.  [overwrites w, accumulates into h]"""
    for i in range(w.size):
        taken = min(max(w[i], -threshold), threshold)
        h[i] += taken
        w[i] -= taken


@sums_kernel
def momentum(i0, i1, part, w, grad, h, mean, memory, scale, l2, l1, rate, mu, nesterov, ahead, threshold):
    """SGD with momentum, or Nesterov's method (w is then the look-ahead point).  [overwrites w, h, mean]

    SGD       h' = mu * h + rate * g;  w -= h'
    Nesterov  h' = mu * h + rate * g;  w -= (1 + mu) * h' - mu * h, in two steps: w -= rate * g, then w -= mu * h'

    ahead      whether Nesterov's second step is taken as well
    threshold  threshold of the prox of sum of |w|, applied as in ``update_prox``; 0: none
    """
    kind = w.dtype.type
    scale, l2, l1, rate, mu, threshold = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu), kind(threshold)
    memory, rest = kind(memory), kind(1 - memory)
    for a in range(i0, i1, CHUNK):
        b = min(i1, a + CHUNK)
        step(w[a:b], grad[a:b], h[a:b], mean[a:b], memory, rest, scale, l2, l1, rate, mu, nesterov)
        if threshold > 0:
            _shrink_elements(w[a:b], h[a:b], threshold)
        if nesterov and ahead:
            _look_ahead(w[a:b], h[a:b], mu)


@sums_kernel
def look_ahead(i0, i1, part, w, h, mu):
    """w -= mu * h.  [overwrites w]"""
    _look_ahead(w[i0:i1], h[i0:i1], w.dtype.type(mu))


@sums_kernel
def _calm(w, grad, mean, memory, rest):
    """mean = memory * mean + rest * grad; where w is 0, grad = mean. No effect for an empty mean.  [overwrites mean,
    grad]"""
    for i in range(mean.size):
        g = grad[i]
        m = memory * mean[i] + rest * g
        mean[i] = m
        grad[i] = m if w[i] == 0 else g


@sums_kernel
def adagrad(i0, i1, part, w, grad, square, mean, memory, scale, l2, l1, rate, delta, keep_steps):
    """square += g^2; w -= rate * g / (sqrt(square) + delta).  [overwrites w, square, mean, grad]"""
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    memory, rest = kind(memory), kind(1 - memory)
    for a in range(i0, i1, CHUNK):
        b = min(i1, a + CHUNK)
        x, g, s = w[a:b], grad[a:b], square[a:b]
        _calm(x, g, mean[a:b], memory, rest)
        for i in range(x.size):
            d = scale * g[i] + l2 * x[i] + l1 * np.sign(x[i])
            s[i] += d * d
            step = rate / (np.sqrt(s[i]) + delta)
            x[i] -= step * d
            if keep_steps:
                g[i] = step


@sums_kernel
def rmsprop(i0, i1, part, w, grad, square, mean, memory, scale, l2, l1, rate, decay, delta, keep_steps):
    """square = decay * square + (1 - decay) * g^2; w -= rate * g / (sqrt(square) + delta).

    [overwrites w, square, mean, grad]
    """
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    memory, rest, decay, fresh = kind(memory), kind(1 - memory), kind(decay), kind(1 - decay)
    for a in range(i0, i1, CHUNK):
        b = min(i1, a + CHUNK)
        x, g, s = w[a:b], grad[a:b], square[a:b]
        _calm(x, g, mean[a:b], memory, rest)
        for i in range(x.size):
            d = scale * g[i] + l2 * x[i] + l1 * np.sign(x[i])
            s[i] = decay * s[i] + fresh * d * d
            step = rate / (np.sqrt(s[i]) + delta)
            x[i] -= step * d
            if keep_steps:
                g[i] = step


@sums_kernel
def adadelta(i0, i1, part, w, grad, square, travel, mean, memory, scale, l2, l1, rate, decay, delta, keep_steps):
    """square = decay * square + (1 - decay) * g^2; u = g * sqrt((travel + delta) / (square + delta));
    travel = decay * travel + (1 - decay) * u^2; w -= rate * u.  [overwrites w, square, travel, mean, grad]"""
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    memory, rest, decay, fresh = kind(memory), kind(1 - memory), kind(decay), kind(1 - decay)
    for a in range(i0, i1, CHUNK):
        b = min(i1, a + CHUNK)
        x, g, s, t = w[a:b], grad[a:b], square[a:b], travel[a:b]
        _calm(x, g, mean[a:b], memory, rest)
        for i in range(x.size):
            d = scale * g[i] + l2 * x[i] + l1 * np.sign(x[i])
            s[i] = decay * s[i] + fresh * d * d
            ratio = np.sqrt((t[i] + delta) / (s[i] + delta))
            u = d * ratio
            t[i] = decay * t[i] + fresh * u * u
            x[i] -= rate * u
            if keep_steps:
                g[i] = rate * ratio


@sums_kernel
def adam(
    i0, i1, part, w, grad, first, second, mean, memory, scale, l2, l1, rate, beta1, beta2, delta, power1, power2,
    loss2, loss1, keep_steps,
):  # fmt: skip
    """first = beta1 * first + (1 - beta1) * g; second = beta2 * second + (1 - beta2) * g^2;
    w -= rate * sqrt(1 - power2) / (1 - power1) * first / (sqrt(second) + delta).

    power1, power2   beta1^t, beta2^t, t counted from 1
    loss2, loss1     decoupled weight decay, subtracted before the update: loss2 * w + loss1 * sign(w)
    keep_steps       the steps are those of the unbiased mean, first / (1 - power1)

    [overwrites w, first, second, mean, grad]
    """
    kind = w.dtype.type
    scale, l2, l1, delta, loss2, loss1 = kind(scale), kind(l2), kind(l1), kind(delta), kind(loss2), kind(loss1)
    memory, rest = kind(memory), kind(1 - memory)
    beta1, rest1, beta2, rest2 = kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2)
    correction, unbiased = kind(rate * np.sqrt(1 - power2) / (1 - power1)), kind(1 - power1)
    for a in range(i0, i1, CHUNK):
        b = min(i1, a + CHUNK)
        x, g, m, v = w[a:b], grad[a:b], first[a:b], second[a:b]
        _calm(x, g, mean[a:b], memory, rest)
        for i in range(x.size):
            d = scale * g[i] + l2 * x[i] + l1 * np.sign(x[i])
            m[i] = beta1 * m[i] + rest1 * d
            v[i] = beta2 * v[i] + rest2 * d * d
            step = correction / (np.sqrt(v[i]) + delta)
            x[i] -= step * m[i] + loss2 * x[i] + loss1 * np.sign(x[i])
            if keep_steps:
                g[i] = step * unbiased


@sums_kernel
def calm(i0, i1, part, w, grad, mean, memory):
    """mean = memory * mean + (1 - memory) * grad; where w is 0, grad = mean.  [overwrites mean, grad]"""
    _calm(w[i0:i1], grad[i0:i1], mean[i0:i1], w.dtype.type(memory), w.dtype.type(1 - memory))


@sums_kernel
def regularise(i0, i1, thread, w, grad, scale, l2, l1, multipliers):
    """grad = scale * grad + multipliers * (l2 * w + l1 * sign(w)); without multipliers (size 0) they are 1.  [overwrites grad]"""
    kind = w.dtype.type
    scale, l2, l1 = kind(scale), kind(l2), kind(l1)
    w, grad = w[i0:i1], grad[i0:i1]
    if multipliers.size == 0:
        for i in range(w.size):
            grad[i] = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
    else:
        multipliers = multipliers[i0:i1]
        for i in range(w.size):
            grad[i] = scale * grad[i] + multipliers[i] * (l2 * w[i] + l1 * np.sign(w[i]))


@sums_kernel
def decay(i0, i1, thread, w, l2, l1, multipliers):
    """w -= multipliers * (l2 * w + l1 * sign(w)); without multipliers (size 0) they are 1.  [overwrites w]"""
    kind = w.dtype.type
    l2, l1 = kind(l2), kind(l1)
    w = w[i0:i1]
    if multipliers.size == 0:
        for i in range(w.size):
            w[i] -= l2 * w[i] + l1 * np.sign(w[i])
    else:
        multipliers = multipliers[i0:i1]
        for i in range(w.size):
            w[i] -= multipliers[i] * (l2 * w[i] + l1 * np.sign(w[i]))


@sums_kernel
def square_sums(i0, i1, thread, x, out):
    """out[k] = sum of squares of the k-th block of SUM_BLOCK elements, for k in [i0, i1).  [overwrites out, float64]"""
    for k in range(i0, i1):
        block = x[k * SUM_BLOCK : (k + 1) * SUM_BLOCK]
        total = x.dtype.type(0)
        for i in range(block.size):
            total += block[i] * block[i]
        out[k] = total


@sums_kernel
def cut(i0, i1, thread, w, threshold):
    """Sets elements with |w| < threshold to zero.  [overwrites w]"""
    threshold = w.dtype.type(threshold)
    w = w[i0:i1]
    for i in range(w.size):
        if abs(w[i]) < threshold:
            w[i] = 0


@sums_kernel
def mask(i0, i1, thread, x, keep):
    """Sets elements where keep (uint8) is 0 to zero.  [overwrites x]"""
    x, keep = x[i0:i1], keep[i0:i1]
    for i in range(x.size):
        if keep[i] == 0:
            x[i] = 0
