"""Python layers: they run the user's class, and only when allowed."""

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.net.net import Net

MODULE = """
import json
from sslnet.layers.python import PythonLayer

class Scaled(PythonLayer):
    def setup(self, bottom, top):
        self.factor = json.loads(self.param_str)["factor"]
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 1
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.factor * self.blobs[0].data[0] * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += self.factor * (bottom[0].data * top[0].diff).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * self.blobs[0].data[0] * top[0].diff

class Broken(PythonLayer):
    def reshape(self, bottom, top):
        raise KeyError("no such thing")
"""

NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "y" type: "Python" bottom: "x" top: "y"
  python_param { module: "user_layers_%s" layer: "%s" param_str: '{"factor": 3}' } }
"""


@pytest.fixture
def net_text(tmp_path, monkeypatch, request):
    tag = request.node.name
    (tmp_path / f"user_layers_{tag}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return lambda layer="Scaled": prototxt.parse(NET % (tag, layer), pb.NetParameter, "net.prototxt")


def test_python_layer_forward_and_backward(net_text):
    net = Net(net_text(), allow_python=True)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(net.forward(x=x)["y"], 3 * x)
    np.testing.assert_allclose(net.backward(y=np.ones((2, 3)))["x"], np.full((2, 3), 3))
    assert net.params["y"][0].diff[0] == 3 * x.sum()


def test_python_layer_is_refused_unless_allowed(net_text):
    with pytest.raises(DefinitionError, match="asks to run Python code") as caught:
        Net(net_text())
    assert caught.value.line == 5
    assert "--allow-python-layers" in str(caught.value)


def test_python_layer_unknown_class_is_named(net_text):
    with pytest.raises(DefinitionError, match='has no class "Missing"'):
        Net(net_text("Missing"), allow_python=True)


def test_python_layer_error_tells_the_method_and_keeps_the_cause(net_text):
    with pytest.raises(DefinitionError, match=r"Broken\.reshape raised KeyError") as caught:
        Net(net_text("Broken"), allow_python=True)
    assert isinstance(caught.value.__cause__, KeyError)


def test_python_layer_in_place_on_values_that_are_read_again_is_refused(net_text):
    definition = net_text()
    sigmoid = definition.message.layer.add(name="s", type="Sigmoid", bottom=["x"], top=["y"])
    user = definition.message.layer[1]
    user.bottom[:] = ["y"]
    layers = [definition.message.layer[0], sigmoid, user]
    with pytest.raises(DefinitionError, match='cannot work in place on "y"'):
        Net(pb.NetParameter(layer=layers), allow_python=True)
