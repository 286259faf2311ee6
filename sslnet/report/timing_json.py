"""Times as JSON: in milliseconds, with values that the tables omit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslnet.timing.layerwise import Spread, Timing
    from sslnet.timing.sparse_forms import FormTimes, FormTiming

PARTS = {"forward": "forward", "backward": "backward", "product": "gemm"}
"""Parts of the time of a form, and their names here."""


def timing_json(timing: Timing) -> dict[str, Any]:
    """Each net with its layers, and with two nets the speedups by layer name."""
    result: dict[str, Any] = {
        "iterations": timing.iterations,
        "threads": timing.threads,
        "peak_gflops_per_second": timing.peak / 1e9 if timing.peak is not None else None,
        "nets": [
            {
                "name": net.name,
                "model": net.model,
                "phase": net.phase,
                "batch": net.batch,
                "flops": net.flops,
                "forward_ms": _spread(net.forward),
                "backward_ms": _spread(net.backward),
                "memory_bytes": {
                    "blobs": net.memory.blobs,
                    "layers": net.memory.layers,
                    "params": net.memory.params,
                },
                "layers": [
                    {
                        "name": layer.name,
                        "type": layer.type,
                        "kernel": layer.kernel,
                        "timed": not layer.source,
                        "forward_ms": _spread(layer.forward),
                        "backward_ms": _spread(layer.backward),
                        "flops": layer.flops,
                        "flops_left": layer.flops_left,
                        "gflops_per_second": layer.rate / 1e9 if layer.rate else None,
                        "filters": layer.filters,
                        "columns": layer.columns,
                    }
                    for layer in net.layers
                ],
            }
            for net in timing.nets
        ],
    }
    if len(timing.nets) > 1:
        result["speedup"] = _speedups(timing)
    return result


def forms_json(timing: FormTiming) -> dict[str, Any]:
    """Each layer by form, all layers together, and the whole net."""
    return {
        "name": timing.name,
        "model": timing.model,
        "phase": timing.phase,
        "batch": timing.batch,
        "threads": timing.threads,
        "iterations": timing.iterations,
        "peak_gflops_per_second": timing.peak / 1e9,
        "layers": [
            {
                "name": row.name,
                "type": row.type,
                "filters": row.filters,
                "columns": row.columns,
                "weights": row.weights,
                "forms": {form: _form(row, form) | _layer_form(row, form, timing.peak) for form in row.forms},
            }
            for row in timing.layers
        ],
        "all_layers": {
            form: {
                "flop_limit": timing.limit(form),
                **{f"{word}_ms": _milli(timing.total(form, part)) for part, word in PARTS.items()},
                "speedup": {word: timing.speedup(form, part) for part, word in PARTS.items()},
            }
            for form in [*timing.whole.forms, "fastest"]
        },
        "whole_net": {form: _form(timing.whole, form) for form in timing.whole.forms},
    }


def _form(row: FormTimes, form: str) -> dict[str, Any]:
    time = row.forms[form]
    return {
        "flops": time.flops,
        "flop_limit": row.limit(form),
        **{f"{word}_ms": _spread(getattr(time, part)) for part, word in PARTS.items()},
        "speedup": {word: row.speedup(form, part) for part, word in PARTS.items()},
    }


def _layer_form(row: FormTimes, form: str, peak: float) -> dict[str, Any]:
    time = row.forms[form]
    rates = {word: time.rate(part) for part, word in PARTS.items()}
    return {
        "kernel": time.kernel or None,
        "gemm_library": time.gemm_library if time.product is not None else None,
        "share_of_peak": {word: rate / peak if rate is not None else None for word, rate in rates.items()},
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": 1e3 * spread.median, "low": 1e3 * spread.low, "high": 1e3 * spread.high}


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _speedups(timing: Timing) -> dict[str, Any]:
    """First over second: of each layer that both have, forward and backward together, and of the whole net."""
    first, second = timing.nets[0], timing.nets[1]
    theirs = {layer.name: layer for layer in second.layers}
    layers = {
        layer.name: {
            "time": layer.seconds / theirs[layer.name].seconds,
            "flops": layer.flops / theirs[layer.name].flops if theirs[layer.name].flops else None,
        }
        for layer in first.layers
        if layer.name in theirs and not layer.source and theirs[layer.name].seconds
    }
    whole = {"time": first.seconds / second.seconds, "flops": first.flops / second.flops if second.flops else None}
    return {"layers": layers, "whole": whole}
