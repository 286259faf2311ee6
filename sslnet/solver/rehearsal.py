"""One pass of a solver's nets that leaves no trace: it compiles their kernels."""

from __future__ import annotations

from sslnet.ranks.place import BatchPlace
from sslnet.solver.data_errors import Statistics
from sslnet.solver.run_state import SolverParts, nets_of


def rehearse(solver: SolverParts, place: BatchPlace) -> None:
    """Runs the train net forward and backward, the test nets forward; data, statistics and random numbers are as before.

    place   of the train net; its layers exchange nothing during the pass
    """
    exchange, place.exchange = place.exchange, None
    states = [(net, net.layer_states()) for net in nets_of(solver).values()]
    statistics = Statistics(solver.net)
    try:
        solver.net.clear_param_diffs()
        for net, _ in states:
            net.forward()
            if net is solver.net:
                net.backward()
    finally:
        place.exchange = exchange
        statistics.restore()
        for net, state in states:
            net.set_layer_states(state)
        solver.net.clear_param_diffs()
