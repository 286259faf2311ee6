import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError

SOLVER = """\
net: "lenet.prototxt"
train_state { level: 1 }
test_state { stage: "a" }
test_state { stage: "b" }
base_lr: 0.1
stepvalue: 10
stepvalue: 20
"""


@pytest.fixture
def solver():
    return prototxt.parse(SOLVER, pb.SolverParameter, path="solver.prototxt")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("base_lr=0.01", "base_lr: 0.01"),
        ("base_lr = 1e-3", "base_lr: 0.001"),
        ("max_iter=5", "max_iter: 5"),
        ("solver_mode=CPU", "solver_mode: CPU"),
        ("snapshot_after_train=false", "snapshot_after_train: false"),
        ("net=other.prototxt", 'net: "other.prototxt"'),
        ('net="other.prototxt"', 'net: "other.prototxt"'),
        ("snapshot_prefix=a=b", 'snapshot_prefix: "a=b"'),
        ("train_state.level=2", "train_state { level: 2 }"),
        ("train_state.stage=x,y", 'train_state { level: 1 stage: "x" stage: "y" }'),
        ("test_state.1.stage=c", 'test_state { stage: "c" }'),
        ("net_param.name=x", 'net_param { name: "x" }'),
        ("weights='a,b.caffemodel',c.caffemodel", 'weights: "a,b.caffemodel"\nweights: "c.caffemodel"'),
    ],
)
def test_override_sets_a_field(solver, override, line):
    changed = prototxt.apply_overrides(solver, [override])
    assert line in prototxt.write(changed.message)
    assert prototxt.write(solver.message) == SOLVER


def test_override_replaces_all_values_of_a_repeated_field(solver):
    assert prototxt.apply_overrides(solver, ["stepvalue=100,200,300"]).message.stepvalue == [100, 200, 300]


@pytest.mark.parametrize("name", ["base_lr", "stepvalue", "net"])
def test_override_with_nothing_takes_the_field_away(solver, name):
    message = prototxt.apply_overrides(solver, [f"{name}="]).message
    assert name not in [field.name for field, _ in message.ListFields()]


def test_override_later_ones_win(solver):
    assert prototxt.apply_overrides(solver, ["display=1", "display=2"]).message.display == 2


def test_override_of_a_field_takes_its_place_in_the_file(solver):
    changed = prototxt.apply_overrides(solver, ["base_lr=0.01", "test_state.1.stage=c"])
    assert changed.span("base_lr") is None
    assert changed.span("test_state", 1, "stage").text == 'test_state { stage: "b" }'
    assert changed.overrides == {
        ("base_lr",): "--set base_lr=0.01",
        ("test_state", 1, "stage"): "--set test_state.1.stage=c",
    }
    assert changed.span("stepvalue", 1).line == 7
    assert solver.span("base_lr").line == 5


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("base_lr", "--set base_lr: write --set FIELD=VALUE\n  as --set base_lr=0.01"),
        ("=1", "--set =1: write --set FIELD=VALUE\n  as --set base_lr=0.01"),
        ("bass_lr=1", '--set bass_lr=1: SolverParameter has no field "bass_lr"\n  did you mean "base_lr"?'),
        ("Base_LR=1", '--set Base_LR=1: SolverParameter has no field "Base_LR"\n  did you mean "base_lr"?'),
        ("base_lr=fast", "--set base_lr=fast: base_lr must be a number, not fast"),
        ("max_iter=1.5", "--set max_iter=1.5: max_iter must be a whole number, not 1.5"),
        ("stepvalue=1,x", "--set stepvalue=1,x: stepvalue must be a whole number, not x"),
        (
            "solver_mode=cpu",
            '--set solver_mode=cpu: solver_mode must be one of CPU, GPU, not cpu\n  did you mean "CPU"?',
        ),
        (
            "net_param=x",
            "--set net_param=x: net_param is a block { ... }: set a field in it\n  as net_param.FIELD=VALUE",
        ),
        ("base_lr.x=1", "--set base_lr.x=1: base_lr is a number: there is no x in it"),
        (
            "net_param.nam=x",
            '--set net_param.nam=x: NetParameter has no field "nam"\n  did you mean "name"?',
        ),
        (
            "test_state.stage=c",
            "--set test_state.stage=c: test_state is a list: say which one, counted from 0\n  as test_state.0.stage",
        ),
        ("test_state.2.stage=c", "--set test_state.2.stage=c: there is no test_state 2: there are 2, counted from 0"),
        ("test_state.0=c", "--set test_state.0=c: test_state is a list of blocks: set a field in one of them"),
        ("a" * 3 + "=\0", '--set aaa=\\x00: SolverParameter has no field "aaa"'),
    ],
)
def test_override_that_cannot_be_names_the_option(solver, override, text):
    with pytest.raises(UsageError) as caught:
        prototxt.apply_overrides(solver, [override])
    assert str(caught.value) == "error: " + text
