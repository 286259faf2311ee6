"""The moving average of weights."""

from __future__ import annotations

from sslnet.kernels.runtime.compiler import sums_kernel


@sums_kernel
def average(i0, i1, thread, mean, values, rest):
    """mean += rest * (values - mean), in [i0, i1).  [overwrites mean]"""
    mean, values = mean[i0:i1], values[i0:i1]
    for i in range(mean.size):
        mean[i] += rest * (values[i] - mean[i])
