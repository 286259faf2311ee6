"""The schema against a table of Caffe's, against files that Caffe wrote, and against its generator."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from sslnet import sslnet_pb2 as pb

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ROOT / "tests" / "goldens" / "formats"
TABLE = (ROOT / "tests" / "sslnet_schema.txt").read_text(encoding="utf-8").splitlines()
FIELDS = {line.split()[0]: line.split()[1:] for line in TABLE if line[0] != "#" and ": " not in line}
ENUMS = dict(line.split(": ") for line in TABLE if line[0] != "#" and ": " in line)
TYPES = {
    name.removeprefix("TYPE_").lower(): number for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


SCHEMA = descriptor_pb2.FileDescriptorProto()
pb.DESCRIPTOR.CopyToProto(SCHEMA)


def messages(container=SCHEMA.message_type, prefix=""):
    for message in container:
        yield prefix + message.name, message
        yield from messages(message.nested_type, f"{prefix}{message.name}.")


def enums():
    yield from ((enum.name, enum) for enum in SCHEMA.enum_type)
    for name, message in messages():
        yield from ((f"{name}.{enum.name}", enum) for enum in message.enum_type)


def as_in_table(field):
    """number, label, type and default of a field, in the words of the table."""
    label = "repeated" if field.label == field.LABEL_REPEATED else "optional"
    kind = field.type_name.removeprefix(".sslnet.") or next(name for name, n in TYPES.items() if n == field.type)
    default = field.default_value if field.HasField("default_value") else "-"
    if kind == "string" and default != "-":
        default = f'"{default}"'
    return [str(field.number), label, kind, "packed" if field.options.packed else default]


def same_number(ours, theirs):
    """Two ways to write the same single-precision number: 0.999 and 0.999000013."""
    return ours == theirs or abs(float(ours) - float(theirs)) <= 1e-7 * abs(float(theirs))


def test_schema_has_every_field_of_the_table_and_no_other():
    ours = {f"{name}.{field.name}" for name, message in messages() for field in message.field}
    assert ours == set(FIELDS), (
        "a field of protos/sslnet.proto has its line in tests/sslnet_schema.txt, and no other has"
    )


@pytest.mark.parametrize("name", [name for name, _ in messages()])
def test_schema_gives_each_field_its_number_label_type_and_default(name):
    message = dict(messages())[name]
    for field in message.field:
        ours, theirs = as_in_table(field), FIELDS[f"{name}.{field.name}"]
        assert ours[:3] == theirs[:3], field.name
        number = theirs[2] == "float" and theirs[3] != "-"
        assert same_number(ours[3], theirs[3]) if number else ours[3] == theirs[3], field.name


def test_schema_gives_each_enum_its_values():
    ours = {
        name: " ".join(f"{value.name}={value.number}" for value in sorted(enum.value, key=lambda value: value.number))
        for name, enum in enums()
    }
    assert ours == ENUMS


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny_binaryproto_iter_20.caffemodel", pb.NetParameter),
        ("tiny_binaryproto_iter_20.solverstate", pb.SolverState),
    ],
)
def test_schema_knows_every_byte_of_a_file_of_caffe(name, kind):
    data = (FORMATS / name).read_bytes()
    message = kind.FromString(data)
    message.DiscardUnknownFields()
    assert message.SerializeToString() == data


def test_schema_reads_the_weights_of_a_file_of_caffe():
    message = pb.NetParameter.FromString((FORMATS / "tiny_binaryproto_iter_20.caffemodel").read_bytes())
    weights = {layer.name: [list(blob.shape.dim) for blob in layer.blobs] for layer in message.layer if layer.blobs}
    assert weights == {
        "conv": [[4, 2, 3, 3], [4]],
        "bn": [[4], [4], [1]],
        "sc": [[4], [4]],
        "ip": [[3, 64], [3]],
    }
    assert all(len(blob.data) > 0 for layer in message.layer for blob in layer.blobs)


def test_generated_module_imports_without_warnings():
    subprocess.run([sys.executable, "-W", "error", "-c", "import sslnet.sslnet_pb2"], check=True, cwd=ROOT)


def test_generated_module_names_its_home():
    assert pb.NetParameter.__module__ == "sslnet.sslnet_pb2"  # or messages could not be pickled


def check(root):
    command = [sys.executable, str(root / "tools" / "gen_proto"), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    for name in ("protos/sslnet.proto", "sslnet/sslnet_pb2.py", "sslnet/sslnet_pb2.pyi", "tools/gen_proto"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_gen_proto_check_passes_on_what_is_committed():
    assert check(ROOT).returncode == 0, "run tools/gen_proto"


def test_gen_proto_check_fails_after_a_change_of_the_schema(checkout):
    with (checkout / "protos" / "sslnet.proto").open("a", encoding="utf-8") as file:
        file.write("message New {}\n")
    result = check(checkout)
    assert result.returncode == 1
    assert "sslnet_pb2.py does not match protos/sslnet.proto: run tools/gen_proto" in result.stderr


def test_gen_proto_check_fails_after_an_edit_of_the_generated_file(checkout):
    with (checkout / "sslnet" / "sslnet_pb2.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert check(checkout).returncode == 1
