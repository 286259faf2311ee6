"""``sslnet warmup``: compiles the kernels that nets need before their first run."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.errors import SslnetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sslnet.cli.compiling import Compiling
    from sslnet.net.input_layers import Shapes
    from sslnet.net.net import Net
    from sslnet.prototxt import Definition

HELP = "Compiles the kernels that nets need in advance, so that their first runs start at once."
EXAMPLE = "sslnet warmup --solver solvers/digits_ssl.prototxt"

MOST_IMAGES = 16
"""Maximum batch size: kernels depend on the size of images, and not on their number if each thread has some."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", action="append", default=[], metavar="FILE",
        help="a solver to compile for; may be repeated")  # fmt: skip
    parser.add_argument("--model", action="append", default=[], metavar="FILE",
        help="a net to compile for; may be repeated; default: the nets of solvers/, in a clone of the repository")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.options import use_threads

    use_threads(args.threads)
    log = RunLog()
    tasks: list[tuple[Callable[[str, Compiling], None], str]] = [(warm_net, path) for path in args.model]
    tasks += [(warm_solver, path) for path in args.solver or ([] if args.model else shipped_solvers())]
    for number, (warm, path) in enumerate(tasks, 1):
        began = time.monotonic()
        with Compiling(log) as compiling:
            warm(path, compiling)
        what = "was ready" if compiling.began is None else f"compiled in {time.monotonic() - began:.0f} s"
        log.result(f"{number}/{len(tasks)} {path} {what}")
    return 0


def shipped_solvers() -> list[str]:
    """The solvers of the repository: in the working directory, or beside the package where it runs from its sources.

    raises UsageError where there are none
    """
    import sslnet

    for folder in (Path("solvers"), Path(sslnet.__file__).parent.parent / "solvers"):
        found = sorted(folder.glob("*.prototxt"))
        if found:
            return [os.path.relpath(path) for path in found]
    raise UsageError("there is no folder solvers here", hint="give --solver or --model")


def warm_net(path: str, compiling: Compiling) -> None:
    """Runs a net once in both phases, backward in TRAIN."""
    from sslnet import prototxt
    from sslnet import sslnet_pb2 as pb

    definition = prototxt.read_net(path)
    for phase in (pb.TRAIN, pb.TEST):
        net = small_net(definition, phase=phase)
        compiling.follow(net)
        net.forward()
        if phase == pb.TRAIN:
            net.backward()
        compiling.finish()
        if phase == pb.TEST:
            run_taped(net)


def warm_solver(path: str, compiling: Compiling) -> None:
    """Runs one iteration of a solver, and one batch of each of its test nets, on nets of their own without data."""
    from sslnet import prototxt
    from sslnet import sslnet_pb2 as pb
    from sslnet.solver.measure_training import measure_training
    from sslnet.solver.solver import Solver
    from sslnet.solver.solver_definition import find_nets, net_state

    given = prototxt.read_solver(path)
    train, tests = find_nets(given)
    message = pb.SolverParameter()
    message.CopyFrom(given.message)
    states = list(message.test_state) or [pb.NetState()] * len(tests)
    for field in ("weights", "test_interval", "snapshot", "display", "prune_param", "snapshot_best", "patience"):
        message.ClearField(field)
    message.test_iter[:] = [1] * len(tests)
    net = small_net(train, **net_state(train, pb.TRAIN, message.train_state))
    test_nets = [small_net(test, **net_state(test, pb.TEST, state)) for test, state in zip(tests, states)]
    solver = Solver(given.with_message(message), net=net, test_nets=test_nets)
    compiling.follow(net, test_nets)
    solver.test()
    solver.step(1)
    measure_training(solver)  # what displays show
    compiling.finish()
    for test_net in test_nets:
        run_taped(test_net)


def run_taped(net: Net) -> None:
    """Compiles what calls the kernels of a net from a tape: passes after the first one run so."""
    for _ in range(2):
        net.forward()


def small_net(definition: Definition, **state: Any) -> Net:
    """The net with Input layers of a few images in place of its data: of the shapes of its data where they are there,
    else of the shape that the deploy.prototxt beside it says."""
    from sslnet.net.input_layers import fetch, fill_inputs, source_shapes, with_inputs
    from sslnet.net.net import Net

    try:
        net = Net(definition, **state)
        fetch(net)
        shapes: Shapes = source_shapes(net)
        del net
    except SslnetError:
        shapes = deploy_shapes(definition)
        if not shapes:
            raise
    few = {name: (min(shape[0], MOST_IMAGES), *shape[1:]) if len(shape) else shape for name, shape in shapes.items()}
    net = Net(with_inputs(definition, few), **state)
    fill_inputs(net)
    images = [(shape[0], few[name][0]) for name, shape in shapes.items() if len(shape)]
    if images and images[0][0] > images[0][1]:
        warm_products(net, *images[0])
    return net


def warm_products(net: Net, images: int, few: int) -> None:
    """Compiles the tiles of fully connected layers, which depend on the number of images, for that of the whole batch."""
    from sslnet import sslnet_pb2 as pb
    from sslnet.kernels.matmul.fully_connected import plan_dot
    from sslnet.net.steps.inner_product import InnerProductStep

    for step in net.plan(fused=True).steps:
        if isinstance(step, InnerProductStep) and not step.layer.transpose:
            rows, *others = step.sizes
            plan_dot(rows * images // few, *others, blas=step.layer.phase != pb.TEST)


def deploy_shapes(definition: Definition) -> Shapes:
    """Shapes for the tops of data layers, images as the deploy net's input and one label each; none without a deploy net."""
    from sslnet import prototxt
    from sslnet.net.input_layers import is_source

    beside = Path(definition.path).parent / "deploy.prototxt" if definition.path else None
    if beside is None or not beside.exists():
        return {}
    inputs = [layer for layer in prototxt.read_net(str(beside)).message.layer if layer.type == "Input"]
    if len(inputs) != 1 or len(inputs[0].input_param.shape) != 1:
        return {}
    image = tuple(inputs[0].input_param.shape[0].dim[1:])
    tops = [list(layer.top) for layer in definition.message.layer if is_source(layer)]
    return {name: (MOST_IMAGES, *image) if k == 0 else (MOST_IMAGES,) for names in tops for k, name in enumerate(names)}
