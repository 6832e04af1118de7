"""flytekit: one literal type for all classes, literals that hold a version's identity, and errors that say why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Optional, Union, get_args

import msgpack
import pytest
from flytekit import FlyteContextManager, task, workflow
from flytekit.core.annotation import FlyteAnnotation
from flytekit.core.type_engine import TypeEngine, TypeTransformerFailedError
from flytekit.models.core.types import BlobType
from flytekit.models.literals import Binary, Blob, BlobMetadata, Literal, Primitive, Scalar
from flytekit.models.types import LiteralType, SimpleType
from flytekit.types.directory import FlyteDirectory
from google.protobuf import json_format, struct_pb2
from pydantic import BaseModel
from v1_kit import contents, failing, fill, made

from volume_core import NotFoundError, ROVolume, RWVolume, Volume

CLASSES = (Volume, ROVolume, RWVolume)
BOTH = Union[ROVolume, RWVolume]  # noqa: UP007 - the older spelling


class OwnVersion(ROVolume):
    """A class of a user's own."""


def context():
    return FlyteContextManager.current_context()


def literal_of(value, declared=ROVolume) -> Literal:
    return TypeEngine.to_literal(context(), value, declared, TypeEngine.to_literal_type(declared))


def value_of(literal, declared=ROVolume):
    return TypeEngine.to_python_value(context(), literal, declared)


def generic(record) -> Literal:
    return Literal(scalar=Scalar(generic=json_format.Parse(json.dumps(record), struct_pb2.Struct())))


def through_the_wire(model):
    return type(model).from_flyte_idl(type(model.to_flyte_idl()).FromString(model.to_flyte_idl().SerializeToString()))


class TestTheType:
    def test_is_the_same_for_every_class_so_that_the_cluster_lets_one_go_where_another_is_declared(self):
        types = [TypeEngine.to_literal_type(each).to_flyte_idl() for each in (*CLASSES, OwnVersion)]

        assert types[:1] * 4 == types
        assert SimpleType.STRUCT == types[0].simple
        assert types[0].HasField("metadata")  # without it the type is a dictionary's

    def test_has_one_transformer_of_one_name_so_that_tags_of_unions_are_equal(self):
        assert {"Volume"} == {TypeEngine.get_transformer(each).name for each in (*CLASSES, OwnVersion)}
        variants = [TypeEngine.to_literal_type(Optional[each]).union_type.variants[0] for each in CLASSES]  # noqa: UP045
        assert {"Volume"} == {variant.structure.tag for variant in variants}

    def test_is_not_taken_for_a_pydantic_models_though_volumes_are_some(self):
        class Model(BaseModel):
            number: int

        assert "Pydantic Transformer" == TypeEngine.get_transformer(Model).name
        assert 5 == value_of(literal_of(Model(number=5), Model), Model).number

    def test_is_guessed_where_there_is_no_program_after_a_round_through_the_wire_too(self):
        literal_type = TypeEngine.to_literal_type(RWVolume)

        assert ROVolume is TypeEngine.guess_python_type(literal_type)
        assert ROVolume is TypeEngine.guess_python_type(through_the_wire(literal_type))
        assert (ROVolume,) == get_args(TypeEngine.guess_python_type(TypeEngine.to_literal_type(list[RWVolume])))

    def test_is_guessed_for_fields_of_what_is_guessed(self):
        version = made("a", a="a")

        @dataclass
        class Data:
            data: RWVolume
            several: list[ROVolume]

        class Model(BaseModel):
            data: RWVolume
            maybe: ROVolume | None = None

        for declared, value in ((Data, Data(version.fork_sync("a"), [version])), (Model, Model(data=version))):
            guessed = TypeEngine.guess_python_type(through_the_wire(TypeEngine.to_literal_type(declared)))
            assert version == value_of(literal_of(value, declared), guessed).data

    def test_takes_what_a_user_annotates(self):
        declared = Annotated[ROVolume, FlyteAnnotation({"team": "vision"})]
        version = made("a", a="a")

        annotations = TypeEngine.to_literal_type(declared).annotation.annotations
        assert "vision" == annotations["team"]
        assert version == value_of(literal_of(version, declared), declared)

    def test_of_other_dictionaries_is_not_ours(self):
        assert dict is TypeEngine.guess_python_type(TypeEngine.to_literal_type(dict))
        with pytest.raises(ValueError, match="is no volume's"):
            TypeEngine.get_transformer(ROVolume).guess_python_type(LiteralType(simple=SimpleType.STRING))


class TestALiteral:
    def test_holds_the_identity_of_the_version_alone(self):
        version = made("a", a="a")
        binary = literal_of(version).scalar.binary

        assert "msgpack" == binary.tag
        assert version.model_dump(mode="json") == msgpack.unpackb(binary.value)

    def test_of_one_version_is_the_same_bytes_however_it_was_come_by(self):
        version = made("a", a="a")
        ways = [version, Volume.from_locator_sync(version.locator), version.fork_sync("b"), version.fork_sync("a")]

        assert 1 == len({literal_of(way, type(way)).scalar.binary.value for way in ways})

    def test_becomes_what_is_declared(self):
        version = made("a", a="a")
        literal = through_the_wire(literal_of(version))

        assert version == value_of(literal) == value_of(literal, Volume)
        fork = value_of(literal, RWVolume)
        assert isinstance(fork, RWVolume) and "a" == fork.name and version == fork.committed
        assert isinstance(value_of(literal, OwnVersion), OwnVersion)

    def test_of_a_fork_is_the_version_that_it_was_forked_from(self):
        version = made("a", a="a")

        assert version == value_of(literal_of(version.fork_sync("b"), RWVolume))

    def test_that_was_typed_into_a_form_is_a_record_a_locator_or_a_name(self):
        version = made("a", a="a")
        version.tag_sync("best")
        typed = ({"locator": version.locator}, {"uri": version.locator}, {"locator": "a"}, {"locator": "a:best"})

        for record in (version.model_dump(mode="json"), *typed, {"locator": "vol://a~best"}):
            assert version == value_of(generic(record))
            assert version == value_of(generic(record), RWVolume).committed
        assert version.used_bytes == value_of(generic(version.model_dump(mode="json"))).used_bytes

    def test_that_is_an_attribute_of_something_is_one_of_its_own(self):
        part = msgpack.packb(made("a", a="a").model_dump(mode="json"))

        assert "a" == value_of(Literal(scalar=Scalar(binary=Binary(value=part, tag="msgpack")))).name

    def test_of_a_directory_is_the_volume_at_its_url(self):
        version = made("a", a="a")
        multipart = BlobType(format="", dimensionality=BlobType.BlobDimensionality.MULTIPART)
        for uri in ("vol://a", version.locator):
            literal = Literal(scalar=Scalar(blob=Blob(metadata=BlobMetadata(multipart), uri=uri)))
            assert version == value_of(literal)

        @task
        def directory() -> FlyteDirectory:
            return FlyteDirectory("vol://a")

        @task
        def read(data: ROVolume) -> str:
            return contents(data)["a"]

        @workflow
        def wf() -> str:
            return read(data=directory())

        assert "a" == wf()

    @pytest.mark.parametrize(
        ("scalar", "reason"),
        [
            (Scalar(primitive=Primitive(integer=3)), "a primitive is no volume"),
            (Scalar(binary=Binary(value=b"x", tag="cbor")), "a volume's literal is msgpack, and this is 'cbor'"),
            (
                Scalar(generic=struct_pb2.Struct()),
                "this is no ROVolume: a mapping that stands for a volume has a `locator`",
            ),
        ],
    )
    def test_of_anything_else_is_an_error_that_says_of_what(self, scalar, reason):
        with pytest.raises(TypeTransformerFailedError, match=reason):
            value_of(Literal(scalar=scalar))

    def test_of_a_version_that_is_not_there_says_so(self):
        with pytest.raises(NotFoundError, match="nothing"):
            value_of(generic({"locator": "nothing"}))

    def test_that_says_where_a_key_is_does_not_show_it(self):
        with pytest.raises(Exception) as caught:
            value_of(generic({"locator": "s3://key:SECRET@bucket/versions/a/b.json"}))
        assert "SECRET" not in str(caught.value)


class TestAValue:
    @pytest.mark.parametrize("value", [None, 3, [1], object()])
    def test_that_is_no_volume_is_an_error_of_the_class_that_unions_look_for(self, value):
        transformer = TypeEngine.get_transformer(ROVolume)
        literal_type = transformer.get_literal_type(ROVolume)

        with pytest.raises(TypeTransformerFailedError, match=r"expected a volume \(ROVolume\), and this is "):
            transformer.assert_type(ROVolume, value)
        with pytest.raises(TypeTransformerFailedError, match=r"expected a volume \(ROVolume\), and this is "):
            transformer.to_literal(context(), value, ROVolume, literal_type)

    def test_that_is_text_is_an_error_that_says_how_to_make_a_volume_of_it(self):
        with pytest.raises(TypeTransformerFailedError, match=r"this is str: ROVolume\.model_validate\(\.\.\.\) makes"):
            literal_of("my-data")

    def test_may_be_a_record(self):
        version = made("a", a="a")

        assert version == value_of(literal_of(version.model_dump(mode="json")))
        assert version == value_of(literal_of({"locator": "a"}, RWVolume))

    def test_in_a_union_with_other_types_is_the_volume(self):
        version = made("a", a="a")
        declared = ROVolume | int | str | None

        for value in (version, 3, "text", None):
            assert value == value_of(literal_of(value, declared), declared)


class TestAUnionOfBothClasses:
    MESSAGE = r"Union\[ROVolume, RWVolume\] leaves open .* Declare ROVolume to read it, or RWVolume to get a fork"

    @pytest.mark.parametrize("declared", [BOTH, ROVolume | RWVolume | None, list[BOTH]])
    def test_is_refused_when_the_task_is_declared(self, declared):
        def takes(data):
            return 1

        takes.__annotations__ = {"data": declared, "return": int}
        with pytest.raises(Exception, match=self.MESSAGE):
            task(takes)

    def test_is_refused_in_a_field_of_a_dataclass(self):
        @dataclass
        class Data:
            data: ROVolume | RWVolume

        with pytest.raises(TypeError, match=f"field 'data' of Data: {self.MESSAGE}"):
            literal_of(Data(made("a", a="a")), Data)

    def test_is_the_only_union_that_is_refused(self):
        assert TypeEngine.to_literal_type(ROVolume | int | None).union_type
        assert TypeEngine.to_literal_type(int | str).union_type


class TestWhatWentWrongInAUnion:
    def test_is_what_is_raised_and_not_that_no_type_fits(self):
        with pytest.raises(NotFoundError, match="nothing"):
            value_of(generic({"locator": "nothing"}), Optional[ROVolume])  # noqa: UP045

    def test_goes_to_flytekit_where_it_was_not_a_volume(self):
        declared = int | None
        with pytest.raises(TypeTransformerFailedError, match="Cannot convert from"):
            TypeEngine.get_transformer(declared).to_literal(
                context(), "x", declared, TypeEngine.to_literal_type(declared)
            )

    def test_is_forgotten_where_another_type_fits(self):
        with failing():
            assert "text" == value_of(literal_of("text", ROVolume | str), ROVolume | str)


def test_the_sync_cache_of_literals_does_not_mix_up_writers_with_changes():
    """flytekit keeps literals by the pickle of their value, where it converts without a running loop."""
    version = made("a", a="a")
    one, two = fill(version.fork_sync("a"), a="one"), fill(version.fork_sync("a"), a="two")

    with pytest.raises(TypeError, match="commit first"):
        one.__reduce__()
    first, second = one.finalize_sync(), two.finalize_sync()
    assert literal_of(one, RWVolume).scalar.binary.value != literal_of(two, RWVolume).scalar.binary.value
    assert [first, second] == [value_of(literal_of(each, RWVolume)) for each in (one, two)]
