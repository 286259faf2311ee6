"""sslnet info: what it tells agrees with what the libraries say themselves."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numba
import pytest

from sslnet import cli
from sslnet.kernels.runtime.threads import num_threads, set_num_threads
from sslnet.kernels.simd.vector import vector_unit


@pytest.fixture
def facts(capsys: pytest.CaptureFixture[str]) -> dict:
    assert cli.main(["info", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_versions_are_those_of_the_installed_packages(facts: dict) -> None:
    for name in ("numpy", "numba", "llvmlite", "scipy", "protobuf"):
        assert facts["versions"][name] == version(name)
    assert facts["versions"]["sslnet"]
    assert facts["python"]["version"] == platform.python_version()


def test_machine_is_described_as_the_system_does(facts: dict) -> None:
    assert facts["cpu"]["name"]
    assert facts["cpu"]["logical"] == os.cpu_count()
    assert 1 <= facts["cpu"]["physical"] <= facts["cpu"]["usable"] <= facts["cpu"]["logical"]


def test_vector_unit_and_threads_are_those_of_the_kernels(facts: dict) -> None:
    assert facts["kernels"]["vectors"] == vector_unit().name
    assert facts["kernels"]["lanes"] == vector_unit().lanes
    assert facts["threads"]["count"] == num_threads()


def test_blas_of_numpy_is_named(facts: dict) -> None:
    assert facts["blas"]
    assert all(library["threads"] >= 1 and library["file"] for library in facts["blas"])


def test_cache_folder_is_where_numba_keeps_the_kernels(facts: dict) -> None:
    from sslnet.sources.transform_kernels import transform

    assert Path(transform._cache.cache_path).is_relative_to(facts["cache"]["folder"])
    assert facts["cache"]["kernels"] >= 0
    assert numba.config.CACHE_DIR == "" or facts["cache"]["folder"].startswith(numba.config.CACHE_DIR)


def test_text_names_everything_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    set_num_threads(1)
    try:
        assert cli.main(["info"]) == 0
    finally:
        set_num_threads(None)
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["threads"].strip().startswith("1 ")
    assert lines["numpy"].strip() == version("numpy")
    assert {"CPU", "cores", "vectors", "memory", "BLAS", "system", "Python", "kernel cache"} <= set(lines)
