"""The endpoint: what was given, loopback, or what the launcher tells when it is asked."""

import attrs
import pytest

from colossalai_env import DistSpec, resolve
from colossalai_env._derived import ATTEMPTS
from colossalai_env._locate import locate
from colossalai_env.errors import CannotLocate, MalformedVariable, UnknownEndpoint, UnresolvableHost
from colossalai_env.resolver import Directory, Environ, HostAnswer, HostQuery
from colossalai_env.spec import Origin, Source

OPEN = DistSpec(rank=1, world_size=4, resolver="house", job_id="7.0")


def way(name: str, answer: HostAnswer | None) -> HostQuery:
    def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
        del spec, environ, seconds
        return answer

    return HostQuery(name, ask)


CHOSEN = Source("MASTER_ADDR", Origin.CHOSEN)

ASKED = HostAnswer("127.0.0.1", "house's own word", "job-9")


def test_a_world_on_one_node_meets_on_loopback_unless_a_host_was_given() -> None:
    one = DistSpec(rank=0, world_size=2, num_nodes=1, host="elsewhere", port=1, sources={"host": "HOUSE_HEAD"})
    assert locate(one, Environ(), (), 1)[0].host == "127.0.0.1"
    given = DistSpec(rank=0, world_size=2, num_nodes=1, host="::1", port=1, sources={"host": CHOSEN})
    assert locate(given, Environ(), (), 1)[1].addresses == ("::1", "127.0.0.1"), "another rank may name the other"


def test_where_torchrun_sets_the_host_its_own_option_is_advised() -> None:
    host = "no-such-host.invalid"
    agent = {
        "TORCHELASTIC_RUN_ID": "9", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2",
    }  # fmt: skip
    by_hand = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": host, "MASTER_PORT": "29500"}
    with pytest.raises(UnresolvableHost, match=rf"'{host}'.*--local-addr=ADDRESS on each node"):
        locate(resolve(env=agent | by_hand), Environ(agent | by_hand), (), 1)
    with pytest.raises(UnresolvableHost, match="export MASTER_ADDR=ADDRESS on every rank"):
        locate(resolve(env=by_hand), Environ(by_hand), (), 1)


def test_the_first_way_that_applies_is_asked_and_named_as_the_source() -> None:
    spec, endpoint = locate(OPEN, Environ(), (way("never", None), way("asking", ASKED)), 1)
    assert (spec.host, spec.job_id, spec.sources["host"]) == ("127.0.0.1", "7.0", "house's own word")
    assert len(endpoint.ports) == len(set(endpoint.ports)) == ATTEMPTS
    assert all(10000 <= port < 32768 for port in endpoint.ports)


def test_a_launch_without_an_id_takes_the_launchers() -> None:
    spec, _ = locate(DistSpec(rank=1, world_size=4, resolver="house"), Environ(), (way("asking", ASKED),), 1)
    assert spec.job_id == "job-9"
    assert "house's own word" in spec.sources["port"]


@pytest.mark.parametrize(("allowed", "asked"), [("asking", True), ("pmi, asking", True), ("none", False)])
def test_a_variable_restricts_what_may_be_asked(allowed: str, *, asked: bool) -> None:
    environ = Environ({"COLOSSALAI_ENV_LOCATE": allowed})
    if asked:
        assert locate(OPEN, environ, (way("asking", ASKED),), 1)[0].host == "127.0.0.1"
    else:
        with pytest.raises(UnknownEndpoint, match="asking is not allowed by COLOSSALAI_ENV_LOCATE"):
            locate(OPEN, environ, (way("asking", ASKED),), 1)


@pytest.mark.parametrize("listed", ["askin", "", "asking,", "ASKING"])
def test_a_way_that_nobody_knows_is_an_error_that_lists_the_known(listed: str) -> None:
    expected = rf"house: COLOSSALAI_ENV_LOCATE is '{listed}', expected none, or some of .*'asking', .*'pmi'"
    with pytest.raises(MalformedVariable, match=expected):
        locate(OPEN, Environ({"COLOSSALAI_ENV_LOCATE": listed}), (way("asking", ASKED),), 1)


def test_where_nobody_says_the_error_names_two_ways_out() -> None:
    with pytest.raises(
        UnknownEndpoint, match=r"house does not say rank 0's host \(rank 1\).*export MASTER_ADDR.*--host"
    ):
        locate(OPEN, Environ(), (way("never", None),), 1)


def test_a_failed_way_is_final() -> None:
    def fail(spec: DistSpec, environ: Environ, seconds: float) -> None:
        del spec, environ, seconds
        raise CannotLocate("house", "asking", "no answer")

    with pytest.raises(CannotLocate, match="no answer"):
        locate(OPEN, Environ(), (HostQuery("asking", fail), way("next", ASKED)), 1)


@pytest.mark.parametrize("host", ["nowhere.invalid", "0.0.0.0", "::"])
def test_a_host_that_is_no_address_to_meet_at_is_named_with_its_source(host: str) -> None:
    spec = DistSpec(rank=0, world_size=2, host=host, port=1, sources={"host": CHOSEN})
    with pytest.raises(UnresolvableHost, match="from MASTER_ADDR"):
        locate(spec, Environ(), (), 1)


def test_a_directory_answers_where_neither_variables_nor_ways_say_the_host_or_it_doubts_them() -> None:
    def first(spec: DistSpec, environ: Environ) -> Directory | None:
        doubt = spec.host is None or spec.sources.get("host") == "A_LIST (first)"
        return Directory("localhost", serves=spec.rank == 2 and not environ.variables) if doubt else None

    spec, endpoint = locate(OPEN, Environ(), (), 1, first)
    assert (spec.host, endpoint.host) == (None, "localhost")
    assert (endpoint.directory, endpoint.serves_directory) == (True, False)
    for source, doubted in ((Source("HEAD"), False), (CHOSEN, False), (Source("A_LIST (first)"), True)):
        listed = attrs.evolve(OPEN, host="localhost", sources={"host": source})
        told, endpoint = locate(listed, Environ(), (), 1, first)
        assert (told.host, endpoint.directory) == (None if doubted else "localhost", doubted)
    spec, endpoint = locate(attrs.evolve(OPEN, rank=2), Environ(), (), 1, first)
    assert (spec.host, endpoint.directory, endpoint.serves_directory) == (None, True, True)


def test_rank_0_in_the_place_of_the_directory_is_found_there() -> None:
    spec, endpoint = locate(
        attrs.evolve(OPEN, rank=0), Environ(), (), 1, lambda _spec, _environ: Directory("localhost", serves=True)
    )
    assert (spec.host, endpoint.directory, endpoint.serves_directory) == ("localhost", False, False)


def test_a_directorys_host_whose_name_leads_nowhere_is_asked_for() -> None:
    def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
        del environ, seconds
        return HostAnswer("127.0.0.1", "house's own word") if spec.host == "nowhere.invalid" else None

    def nowhere(spec: DistSpec, environ: Environ) -> Directory:
        del spec, environ
        return Directory("nowhere.invalid", serves=False)

    spec, endpoint = locate(OPEN, Environ(), (HostQuery("node", ask),), 1, nowhere)
    assert (spec.host, endpoint.host, endpoint.source.partition(" ")[0]) == (None, "127.0.0.1", "house's")
