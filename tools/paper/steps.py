"""The steps of a recipe: each is one command of sslnet, as typed in the working folder, and the file it makes.

    NAME/1_train            trains the net with its solver: dense, or with group lasso
    NAME/1_cut_LAYER_GROUP  sets its smallest filters or shape fibres to zero, if the recipe has cuts
    NAME/2_small            removes zeros
    NAME/3_teach            adds the teacher net, if the recipe has one
    NAME/3_tune             fine-tunes the small net
    NAME/4_test             measures its error
    NAME/5_time             times it and the dense net

The working folder has links to ``models``, ``solvers`` and the data, so that the commands are the same as in the clone.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from paper.recipes import RECIPES, Cut, Recipe, Tuning
from sslnet import prototxt

TIMED_RUNS = 200


@dataclass(frozen=True)
class Step:
    """One command.

    words    arguments of `sslnet`
    makes    file that exists when the step is complete
    printed  whether that file is the command's output
    reads    files on which the result depends
    trains   whether it can continue from snapshots
    """

    recipe: str
    name: str
    words: tuple[str, ...]
    makes: str
    reads: tuple[str, ...]
    printed: bool = False
    trains: bool = False

    @property
    def folder(self) -> str:
        return f"{self.recipe}/{self.name}"

    def __str__(self) -> str:
        command = shlex.join(["sslnet", *self.words])
        return f"{command} > {self.makes}" if self.printed else command


@dataclass(frozen=True)
class Nets:
    """The files of a recipe's final net: with data layers, for inference, weights."""

    model: str
    deploy: str
    weights: str


class Steps:
    """The steps of recipes, for the clone in ``root``.

    dense  weights by recipe that exist already: their training is omitted
    """

    def __init__(self, root: Path, dense: dict[str, str] | None = None) -> None:
        self.root = root
        self.dense = dense or {}

    def needed(self, name: str) -> list[str]:
        """The recipes that a recipe depends on, itself last."""
        recipe = RECIPES[name]
        found: list[str] = []
        for other in (recipe.baseline, recipe.weights, recipe.tuning.teacher if recipe.tuning else ""):
            found += [known for known in self.needed(other) if known not in found] if other else []
        return [*found, name]

    def of(self, name: str) -> list[Step]:
        """The steps of one recipe only; those of the recipes that it needs come before."""
        recipe = RECIPES[name]
        steps = [] if name in self.dense else [self._train(name, recipe)]
        if recipe.baseline:
            weights = self.trained(name)
            for cut in recipe.cuts:
                steps.append(self._cut(name, recipe, cut, weights))
                weights = steps[-1].makes
            steps.append(self._compact(name, recipe, weights))
            if recipe.tuning and recipe.tuning.teacher:
                steps.append(self._teach(name, recipe.tuning.teacher))
            if recipe.tuning:
                steps.append(self._tune(name, recipe.tuning))
        steps.append(self._test(name))
        if recipe.baseline:
            steps.append(self._time(name, recipe))
        return steps

    def trained(self, name: str) -> str:
        """The weights at the end of the training, before compaction."""
        if name in self.dense:
            return self.dense[name]
        recipe = RECIPES[name]
        return f"{name}/1_train/net_iter_{self._iterations(recipe.solver, recipe.overrides)}.caffemodel"

    def final(self, name: str) -> Nets:
        """The net of the paper's row."""
        recipe = RECIPES[name]
        if not recipe.baseline:
            return Nets(f"{recipe.model}/train_test.prototxt", f"{recipe.model}/deploy.prototxt", self.trained(name))
        small = f"{name}/2_small/net"
        weights = f"{small}.caffemodel"
        if recipe.tuning:
            iterations = self._iterations(recipe.tuning.solver, recipe.tuning.overrides)
            weights = f"{name}/3_tune/net_iter_{iterations}.caffemodel"
        return Nets(f"{small}.prototxt", f"{small}_deploy.prototxt", weights)

    def net_of(self, solver: str) -> str:
        """The net of a solver."""
        return str(prototxt.read_solver(self.root / solver).message.net)

    def _iterations(self, solver: str, overrides: tuple[str, ...]) -> int:
        definition = prototxt.apply_overrides(prototxt.read_solver(self.root / solver), list(overrides))
        return int(definition.message.max_iter)

    def _train(self, name: str, recipe: Recipe) -> Step:
        words = ["train", "--solver", recipe.solver, "--set", f"snapshot_prefix={name}/1_train/net"]
        words += [word for override in recipe.overrides for word in ("--set", override)]
        reads = [recipe.solver, self.net_of(recipe.solver)]
        if recipe.weights:
            words += ["--weights", self.trained(recipe.weights)]
            reads.append(self.trained(recipe.weights))
        return Step(name, "1_train", tuple(words), self.trained(name), tuple(reads), trains=True)

    def _cut(self, name: str, recipe: Recipe, cut: Cut, weights: str) -> Step:
        step = f"1_cut_{cut.layer}_{cut.group.lower()}"
        net, output = self.net_of(recipe.solver), f"{name}/{step}/net"
        words = ["prune", "--model", net, "--weights", weights, "--group", cut.group, "--layers", cut.layer]
        words += ["--take-bias"] if cut.group == "FILTER" else []
        words += ["--sparsity", cut.sparsity, "--output", output]
        return Step(name, step, tuple(words), f"{output}.caffemodel", (net, weights))

    def _compact(self, name: str, recipe: Recipe, weights: str) -> Step:
        net = recipe.net or self.net_of(recipe.solver)
        words = ("compact", "--model", net, "--weights", weights, "--output", f"{name}/2_small/net")
        return Step(name, "2_small", words, f"{name}/2_small/net_deploy.prototxt", (net, weights))

    def _teach(self, name: str, teacher: str) -> Step:
        small, knowing, output = f"{name}/2_small/net", self.final(teacher), f"{name}/3_teach/net"
        words = ["teach", "--model", f"{small}.prototxt", "--weights", f"{small}.caffemodel"]
        words += ["--teacher", knowing.deploy, "--teacher-weights", knowing.weights, "--output", output]
        reads = (f"{small}.prototxt", f"{small}.caffemodel", knowing.deploy, knowing.weights)
        return Step(name, "3_teach", tuple(words), f"{output}.prototxt", reads)

    def _tune(self, name: str, tuning: Tuning) -> Step:
        small = f"{name}/3_teach/net" if tuning.teacher else f"{name}/2_small/net"
        fields = [f"net={small}.prototxt", f"snapshot_prefix={name}/3_tune/net", *tuning.overrides]
        words = ["train", "--solver", tuning.solver]
        words += [word for field in fields for word in ("--set", field)] + ["--weights", f"{small}.caffemodel"]
        reads = (tuning.solver, f"{small}.prototxt", f"{small}.caffemodel")
        return Step(name, "3_tune", tuple(words), self.final(name).weights, reads, trains=True)

    def _test(self, name: str) -> Step:
        nets = self.final(name)
        words = ("test", "--model", nets.model, "--weights", nets.weights, "--json")
        return Step(name, "4_test", words, f"{name}/4_test/test.json", (nets.model, nets.weights), printed=True)

    def _time(self, name: str, recipe: Recipe) -> Step:
        dense, small = self.final(recipe.baseline), self.final(name)
        words = ["time", "--model", dense.deploy, "--weights", dense.weights, "--model2", small.deploy]
        words += ["--weights2", small.weights, "--batch", str(recipe.batch), "--phase", "TEST", "--forward-only"]
        words += ["--iterations", str(TIMED_RUNS), "--threads", "1", "--json"]
        reads = (dense.deploy, dense.weights, small.deploy, small.weights)
        return Step(name, "5_time", tuple(words), f"{name}/5_time/time.json", reads, printed=True)
