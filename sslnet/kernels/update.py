"""The update rules on arrays, one pass over the memory each: divide, decay, update in one go.

Common to all rules, element by element and flat:

    g = scale * grad + l2 * w + l1 * sign(w)

with the weights w, the summed gradient ``grad``, scale = (clipping factor) / iter_size, and the weight decay of this
parameter as l2 or l1. ``rate`` is the local rate, learning rate x lr_mult. Each kernel takes a range of elements, or of
panels of a matrix where a proximal step is part of it (see ``prox``); it cuts its slices first, for only loops from
zero over whole arrays are vectorised.

The adaptive rules leave the step size of each element in ``grad`` when ``keep_steps`` is set: a proximal step in the
same metric needs it.

Ref: Caffe's solvers (sgd_solver.cpp and its neighbours), whose formulas these are
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Numba's cache asks for the date of the kernel's own file alone: save this one again after a change of these functions.
from sslnet.kernels.prox import bounds, shrink

SUM_BLOCK = 1 << 14
"""Sums over a whole array are made of sums over blocks of this size, so that they do not depend on the threads."""

_OPTIONS: Any = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract"}, "error_model": "numpy"}


@njit(**_OPTIONS)
def _sgd(w, grad, h, scale, l2, l1, rate, momentum):
    """h = momentum * h + rate * g; w -= h.  [overwrites w, h]"""
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        h[i] = momentum * h[i] + rate * g
        w[i] -= h[i]


@njit(**_OPTIONS)
def _descend(w, grad, h, scale, l2, l1, rate, momentum):
    """w -= rate * g; h = momentum * h + rate * g: Nesterov's step without its look ahead.  [overwrites w, h]"""
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        h[i] = momentum * h[i] + rate * g
        w[i] -= rate * g


@njit(**_OPTIONS)
def _look_ahead(w, h, momentum):
    """w -= momentum * h.  [overwrites w]"""
    for i in range(w.size):
        w[i] -= momentum * h[i]


@njit(**_OPTIONS)
def momentum(i0, i1, thread, w, grad, h, scale, l2, l1, rate, mu, nesterov, ahead):
    """SGD with momentum, or Nesterov's (w then is the point looked ahead to).  [overwrites w, h]

    SGD       h' = mu * h + rate * g;  w -= h'
    Nesterov  h' = mu * h + rate * g;  w -= (1 + mu) * h' - mu * h, in two steps: w -= rate * g, then w -= mu * h'

    ahead  whether Nesterov's second step is taken as well
    """
    kind = w.dtype.type
    scale, l2, l1, rate, mu = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu)
    for a in range(i0, i1, SUM_BLOCK):
        b = min(i1, a + SUM_BLOCK)
        if nesterov:
            _descend(w[a:b], grad[a:b], h[a:b], scale, l2, l1, rate, mu)
            if ahead:
                _look_ahead(w[a:b], h[a:b], mu)
        else:
            _sgd(w[a:b], grad[a:b], h[a:b], scale, l2, l1, rate, mu)


@njit(**_OPTIONS)
def momentum_prox(i0, i1, thread, w, grad, h, scale, l2, l1, rate, mu, nesterov, height, width, span, threshold):
    """As momentum, with the prox of threshold * (sum of the norms of the tiles) inside: panels [i0, i1) of a matrix.

    SGD       v = w - (mu * h + rate * g);  w' = prox(v);  h' = w - w'
    Nesterov  with x = w + mu * h, the point looked ahead from:  x' = prox(w - rate * g);  h' = x - x';  w' = x' - mu * h'

    h so is the whole displacement, the prox's part included: at rest w is the minimiser.  [overwrites w, h]
    """
    kind = w.dtype.type
    scale, l2, l1, rate, mu, threshold = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu), kind(threshold)
    line, sums = np.empty(span, w.dtype), np.empty(span, w.dtype)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, w.shape[1], height, span)
        for i in range(row, row + height):
            if nesterov:
                _descend(w[i, first:end], grad[i, first:end], h[i, first:end], scale, l2, l1, rate, mu)
            else:
                _sgd(w[i, first:end], grad[i, first:end], h[i, first:end], scale, l2, l1, rate, mu)
        shrink(w, h, row, height, first, end, width, threshold, line, sums)
        if nesterov:
            for i in range(row, row + height):
                _look_ahead(w[i, first:end], h[i, first:end], mu)


@njit(**_OPTIONS)
def look_ahead(i0, i1, thread, w, h, mu):
    """w -= mu * h.  [overwrites w]"""
    _look_ahead(w[i0:i1], h[i0:i1], w.dtype.type(mu))


@njit(**_OPTIONS)
def adagrad(i0, i1, thread, w, grad, square, scale, l2, l1, rate, delta, keep_steps):
    """square += g^2; w -= rate * g / (sqrt(square) + delta).  [overwrites w, square; grad with keep_steps]"""
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    w, grad, square = w[i0:i1], grad[i0:i1], square[i0:i1]
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        square[i] += g * g
        step = rate / (np.sqrt(square[i]) + delta)
        w[i] -= step * g
        if keep_steps:
            grad[i] = step


@njit(**_OPTIONS)
def rmsprop(i0, i1, thread, w, grad, square, scale, l2, l1, rate, decay, delta, keep_steps):
    """square = decay * square + (1 - decay) * g^2; w -= rate * g / (sqrt(square) + delta).  [as adagrad]"""
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    decay, rest = kind(decay), kind(1 - decay)
    w, grad, square = w[i0:i1], grad[i0:i1], square[i0:i1]
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        square[i] = decay * square[i] + rest * g * g
        step = rate / (np.sqrt(square[i]) + delta)
        w[i] -= step * g
        if keep_steps:
            grad[i] = step


@njit(**_OPTIONS)
def adadelta(i0, i1, thread, w, grad, square, travel, scale, l2, l1, rate, decay, delta, keep_steps):
    """square = decay * square + (1 - decay) * g^2; u = g * sqrt((travel + delta) / (square + delta));
    travel = decay * travel + (1 - decay) * u^2; w -= rate * u.  [overwrites w, square, travel; grad with keep_steps]"""
    kind = w.dtype.type
    scale, l2, l1, rate, delta = kind(scale), kind(l2), kind(l1), kind(rate), kind(delta)
    decay, rest = kind(decay), kind(1 - decay)
    w, grad, square, travel = w[i0:i1], grad[i0:i1], square[i0:i1], travel[i0:i1]
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        square[i] = decay * square[i] + rest * g * g
        ratio = np.sqrt((travel[i] + delta) / (square[i] + delta))
        u = g * ratio
        travel[i] = decay * travel[i] + rest * u * u
        w[i] -= rate * u
        if keep_steps:
            grad[i] = rate * ratio


@njit(**_OPTIONS)
def adam(i0, i1, thread, w, grad, mean, square, scale, l2, l1, rate, beta1, beta2, delta, power1, power2, keep_steps):
    """mean = beta1 * mean + (1 - beta1) * g; square = beta2 * square + (1 - beta2) * g^2;
    w -= rate * sqrt(1 - power2) / (1 - power1) * mean / (sqrt(square) + delta).

    power1, power2   beta1^t, beta2^t, t counted from 1
    keep_steps       the steps belong to the unbiased mean, mean / (1 - power1)

    [overwrites w, mean, square; grad with keep_steps]
    """
    kind = w.dtype.type
    scale, l2, l1, delta = kind(scale), kind(l2), kind(l1), kind(delta)
    beta1, rest1, beta2, rest2 = kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2)
    correction, unbiased = kind(rate * np.sqrt(1 - power2) / (1 - power1)), kind(1 - power1)
    w, grad, mean, square = w[i0:i1], grad[i0:i1], mean[i0:i1], square[i0:i1]
    for i in range(w.size):
        g = scale * grad[i] + l2 * w[i] + l1 * np.sign(w[i])
        mean[i] = beta1 * mean[i] + rest1 * g
        square[i] = beta2 * square[i] + rest2 * g * g
        step = correction / (np.sqrt(square[i]) + delta)
        w[i] -= step * mean[i]
        if keep_steps:
            grad[i] = step * unbiased


@njit(**_OPTIONS)
def calm(i0, i1, thread, w, grad, mean, memory):
    """mean = memory * mean + (1 - memory) * grad; where w is 0, grad = mean.  [overwrites mean, grad]"""
    kind = w.dtype.type
    memory, rest = kind(memory), kind(1 - memory)
    w, grad, mean = w[i0:i1], grad[i0:i1], mean[i0:i1]
    for i in range(w.size):
        g = grad[i]
        m = memory * mean[i] + rest * g
        mean[i] = m
        grad[i] = m if w[i] == 0 else g


@njit(**_OPTIONS)
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


@njit(**_OPTIONS)
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


@njit(**_OPTIONS)
def square_sums(i0, i1, thread, x, out):
    """out[k] = sum of squares of the k-th block of SUM_BLOCK elements, for k in [i0, i1).  [overwrites out, float64]"""
    for k in range(i0, i1):
        block = x[k * SUM_BLOCK : (k + 1) * SUM_BLOCK]
        total = x.dtype.type(0)
        for i in range(block.size):
            total += block[i] * block[i]
        out[k] = total


@njit(**_OPTIONS)
def cut(i0, i1, thread, w, threshold):
    """Elements with |w| < threshold become zero.  [overwrites w]"""
    threshold = w.dtype.type(threshold)
    w = w[i0:i1]
    for i in range(w.size):
        if abs(w[i]) < threshold:
            w[i] = 0


@njit(**_OPTIONS)
def mask(i0, i1, thread, x, keep):
    """Elements where keep is 0 become zero.  [overwrites x]  keep: uint8"""
    x, keep = x[i0:i1], keep[i0:i1]
    for i in range(x.size):
        if keep[i] == 0:
            x[i] = 0
