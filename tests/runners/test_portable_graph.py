"""The graph that every job is, as other runners get it: nothing in it that one of them lacks."""

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as proto

from shardwright.pipelines.execution import build_pipeline, pipeline_options

# What Flink, Spark and Dataflow all run in batch.
PRIMITIVES = {
    common_urns.primitives.IMPULSE.urn,
    common_urns.primitives.PAR_DO.urn,
    common_urns.primitives.GROUP_BY_KEY.urn,
    common_urns.primitives.FLATTEN.urn,
}


def graph(count: int) -> proto.Pipeline:
    elements = [(n * 400, 400) for n in range(count)]
    options = pipeline_options(["--runner=PortableRunner"], count, 0)
    return build_pipeline("embed", elements, print, options).to_runner_api()


def primitives(pipeline: proto.Pipeline) -> list[proto.PTransform]:
    """The transforms that run: a composite whose output is its input is none of them."""
    leaves = [one for one in pipeline.components.transforms.values() if not one.subtransforms]
    return [one for one in leaves if set(one.outputs.values()) - set(one.inputs.values())]


def test_every_primitive_is_one_that_all_runners_have() -> None:
    found = primitives(graph(10))
    assert {one.spec.urn for one in found} <= PRIMITIVES
    assert len(found) > 3


def test_functions_are_plain() -> None:
    """No state, timers, side inputs, splittable function or bundle finalisation."""
    functions = [one for one in primitives(graph(10)) if one.spec.urn.endswith("pardo:v1")]
    assert functions
    for one in functions:
        payload = proto.ParDoPayload.FromString(one.spec.payload)
        assert not payload.side_inputs
        assert not payload.state_specs
        assert not payload.timer_family_specs
        assert not payload.restriction_coder_id
        assert not payload.requests_finalization
        assert not payload.requires_time_sorted_input


def test_one_environment_of_python_and_no_requirement() -> None:
    pipeline = graph(10)
    assert not pipeline.requirements
    environments = {one.environment_id for one in primitives(pipeline)} - {""}
    assert len(environments) == 1
    assert all(
        w.window_fn.urn == common_urns.global_windows.urn
        for w in pipeline.components.windowing_strategies.values()
    )


@pytest.mark.parametrize("count", [1, 100_000])
def test_graph_fits_into_one_message(count: int) -> None:
    """gRPC takes 4 MB unless told otherwise."""
    assert graph(count).ByteSize() < 4_000_000
