"""Records of databases: the fast way and the message parser agree; damaged ones give one error."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.sources.datum import DatumDecoder, Values

FIRST = pb.Datum(channels=2, height=3, width=4, data=bytes(range(24)), label=7)


def picture(kind: str = "PNG", size: tuple[int, int] = (4, 3)) -> bytes:
    file = io.BytesIO()
    pixels = np.arange(3 * size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0], 3)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoder(first: object = FIRST) -> DatumDecoder:
    made = DatumDecoder("db")
    made.first(first.SerializeToString())
    return made


RECORDS = {
    "same": pb.Datum(channels=2, height=3, width=4, data=bytes(range(24, 48)), label=300),
    "encoded_false": pb.Datum(channels=2, height=3, width=4, data=bytes(24), label=56, encoded=False),
    "other_shape": pb.Datum(channels=2, height=4, width=3, data=bytes(24), label=1),
    "same_length": pb.Datum(channels=1, height=4, width=6, data=bytes(24), label=1),
    "floats": pb.Datum(channels=1, height=1, width=2, float_data=[0.5, -1], label=1),
    "data_and_floats": pb.Datum(channels=2, height=3, width=4, data=bytes(24), float_data=[1.0], label=2),
    "negative_label": pb.Datum(channels=2, height=3, width=4, data=bytes(24), label=-5),
}


@pytest.mark.parametrize("case", RECORDS)
def test_records_are_read_as_their_message_says(case: str) -> None:
    datum = RECORDS[case]
    values = [FIRST.SerializeToString(), datum.SerializeToString()]
    for kind in (bytes, memoryview):
        records = decoder().decode(Values.of([kind(value) for value in values]), np.arange(2), True)
        image, label = records.images[1], records.labels[1]
        expected = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected.reshape(datum.channels, datum.height, datum.width))
        assert label == datum.label
        np.testing.assert_array_equal(records.images[0].ravel(), np.arange(24))


def test_fields_behind_the_pixels_override_as_protobuf_says() -> None:
    """A record whose first bytes look like every other one's, with its sizes given again at the end: the last one counts."""
    value = RECORDS["same"].SerializeToString() + pb.Datum(height=4, width=3).SerializeToString()
    image = decoder().decode(Values.of([value]), np.arange(1), True).images[0]
    assert image.shape == (2, 4, 3)


@settings(deadline=None)
@given(st.data())
def test_the_fast_way_agrees_with_the_parser_on_any_bytes(data) -> None:
    raw = bytearray(FIRST.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(
            st.one_of(st.integers(0, len(raw) - 1), st.integers(0, 12), st.integers(len(raw) - 4, len(raw) - 1))
        )
        raw[at] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    raw += data.draw(st.binary(max_size=6))
    fast, slow = decoder(), DatumDecoder("db")

    def outcome(way: DatumDecoder) -> object:
        try:
            records = way.decode(Values.of([bytes(raw)]), np.array([5]), True)
        except DataError as error:
            assert error.path == "db"
            assert "record 5" in error.message
            return error.message
        return records.images[0].shape, records.images[0].dtype, records.images[0].tobytes(), records.labels.tolist()

    assert outcome(fast) == outcome(slow)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["PNG", "JPEG"]))
def test_mutated_encoded_records_give_an_image_or_one_error(data, kind: str) -> None:
    raw = bytearray(picture(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    value = pb.Datum(data=bytes(raw), encoded=True, label=1).SerializeToString()
    try:
        image = DatumDecoder("db").decode([value], np.array([5]), True).images[0]
        assert image.dtype == np.uint8
        assert image.ndim == 3
    except DataError as error:
        assert "record 5" in error.message


def test_encoded_records_of_one_size_come_as_one_array() -> None:
    values = [pb.Datum(data=picture(), encoded=True, label=i).SerializeToString() for i in range(3)]
    records = DatumDecoder("db").decode(Values.of(values), np.arange(3), True)
    assert isinstance(records.images, np.ndarray)
    assert records.images.shape == (3, 3, 3, 4)
    assert records.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        (pb.Datum(), "holds 0 values, but its size is given as 0 x 0 x 0"),
        (pb.Datum(channels=1, height=2, width=2, data=b"abc"), "holds 3 values, but its size is given as 1 x 2 x 2"),
        (pb.Datum(channels=-1, height=-2, width=2, data=b"abcd"), "holds 4 values"),
        (pb.Datum(channels=2**31 - 1, height=2**31 - 1, width=2**31 - 1, data=b"abcd"), "holds 4 values"),
        (pb.Datum(encoded=True), "cannot be decoded"),
    ],
)
def test_records_that_cannot_be_are_told(datum: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        DatumDecoder("db").first(datum.SerializeToString())
