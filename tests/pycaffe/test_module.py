"""A script written for pycaffe runs with ``import sslnet as caffe``: the calls of Caffe's own notebooks."""

import numpy as np
import pytest

import sslnet as caffe
from sslnet import layers as L
from sslnet import params as P


@pytest.fixture
def solver_file(tmp_path):
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[dict(dim=[8, 1, 6, 6]), dict(dim=[8])],
        data_filler=[dict(type="gaussian"), dict(type="constant", value=1)],
        ntop=2,
    )
    n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=3, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    (tmp_path / "net.prototxt").write_text(str(n.to_proto()))
    (tmp_path / "solver.prototxt").write_text(
        f'train_net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 20 '
        f'random_seed: 1 snapshot_prefix: "{tmp_path}/snap"'
    )
    return str(tmp_path / "solver.prototxt")


def test_notebook_solver_steps(solver_file):
    caffe.set_mode_cpu()
    solver = caffe.get_solver(solver_file)
    assert next((k, v.data.shape) for k, v in solver.net.blobs.items()) == ("data", (8, 1, 6, 6))
    assert [(k, v[0].data.shape) for k, v in solver.net.params.items()] == [("conv1", (4, 1, 3, 3)), ("score", (3, 16))]
    solver.net.forward()
    before = float(solver.net.blobs["loss"].data)
    solver.step(20)
    assert solver.iter == 20
    assert float(solver.net.blobs["loss"].data) < before
    assert np.abs(solver.net.params["conv1"][0].diff).max() > 0


def test_solver_classes_take_their_own_type(solver_file):
    solver = caffe.NesterovSolver(solver_file)
    assert solver.param.type == "Nesterov"
    solver.step(1)


def test_net_surgery_changes_the_output(solver_file):
    net = caffe.get_solver(solver_file).net
    net.params["score"][0].data[...] = 0
    net.params["score"][1].data[...] = [1, 2, 3]
    net.forward()
    np.testing.assert_allclose(net.blobs["score"].data, np.tile([1, 2, 3], (8, 1)))


def test_random_seed_makes_nets_equal(tmp_path, solver_file):
    nets = []
    for _ in range(2):
        caffe.set_random_seed(5)
        nets.append(caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN))
    np.testing.assert_array_equal(nets[0].params["conv1"][0].data, nets[1].params["conv1"][0].data)


def test_gpu_mode_warns():
    with pytest.warns(UserWarning, match="computes on the CPU"):
        caffe.set_mode_gpu()
    caffe.set_device(0)


def test_layer_type_list_is_the_registry():
    assert {"Convolution", "Python", "SoftmaxWithLoss"} <= set(caffe.layer_type_list())


def test_forward_all_takes_any_number_of_images(tmp_path):
    (tmp_path / "deploy.prototxt").write_text(
        'input: "x" input_shape { dim: 4 dim: 3 }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    )
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    x = np.random.default_rng(0).normal(size=(10, 3))
    out = net.forward_all(x=x)["ip"]
    np.testing.assert_allclose(out, x @ net.params["ip"][0].data.T, rtol=1e-4)
    assert net.layer_dict["ip"].type == "InnerProduct"
    assert net._layer_names[-1] == "ip"
    with pytest.raises(caffe.SslnetError, match="needs all inputs: x"):
        net.forward_all()


def test_classifier_averages_ten_crops(tmp_path):
    (tmp_path / "deploy.prototxt").write_text(
        'input: "data" input_shape { dim: 3 dim: 3 dim: 4 dim: 4 }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }\n'
        'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
    )
    caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST).save(tmp_path / "w.caffemodel")
    classifier = caffe.Classifier(
        tmp_path / "deploy.prototxt",
        tmp_path / "w.caffemodel",
        image_dims=(6, 6),
        raw_scale=255,
        channel_swap=(2, 1, 0),
    )
    image = np.random.default_rng(1).random((8, 9, 3), dtype=np.float32)
    crops = caffe.io.oversample([caffe.io.resize_image(image, (6, 6))], (4, 4))
    inputs = np.stack([classifier.transformer.preprocess("data", crop) for crop in crops])
    expected = classifier.forward_all(data=inputs)["prob"].mean(axis=0)
    np.testing.assert_allclose(classifier.predict([image])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict([image, image], oversample=False).sum(axis=1), [1, 1], rtol=1e-5)
