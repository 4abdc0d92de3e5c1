"""The contract, for launchers that start any number of processes on a node."""

from typing import ClassVar

import pytest
from colossalai_env_flux import FLUX
from colossalai_env_horovod import HOROVOD
from colossalai_env_htcondor import HTCONDOR
from colossalai_env_jsrun import JSRUN
from colossalai_env_mvapich import MVAPICH
from colossalai_env_pals import PALS
from colossalai_env_pmix import PMIX
from hypothesis import strategies as st

from colossalai_env import DistSpec, resolve
from colossalai_env.errors import MissingVariable, NotAsked, NotLaunched
from colossalai_env.resolver import Environ, NoMatch
from colossalai_env.testing import ResolverContract, captures
from tests.plugins.nesting import OfMpi, OfSteps

SMALL = st.integers(0, 10**6)


class TestFlux(OfSteps, ResolverContract):
    resolver = FLUX
    job_ids = st.from_regex(r"(/ƒ[1-9A-HJ-NP-Za-km-z]{1,12}){1,3}", fullmatch=True)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name in {"FLUX_TASK_LOCAL_ID", "FLUX_JOB_NNODES", "FLUX_JOB_ID_PATH"}

    def test_the_id_in_one_instance_serves_where_flux_is_too_old_to_say_the_path(self) -> None:
        task = {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "3", "FLUX_JOB_ID": "ƒ6Bq"}
        assert resolve(env=task).job_id == "ƒ6Bq"
        assert resolve(env={**task, "FLUX_JOB_ID_PATH": "/ƒ7/ƒ6Bq"}).job_id == "/ƒ7/ƒ6Bq"

    @pytest.mark.parametrize("mark", ["FLUX_ENCLOSING_ID", "FLUX_URI"])
    def test_a_script_of_flux_batch_is_refused_with_flux_run(self, mark: str) -> None:
        with pytest.raises(NotLaunched, match=rf"{mark}='x'\): start the processes with flux run"):
            resolve(env={mark: "x"})

    def test_a_rank_that_is_set_for_spectrum_mpi_is_not_open_mpis(self) -> None:
        (recorded,) = (one for one in captures() if one.scenario == "flux_uneven5")
        for task in recorded.tasks:
            found = resolve(env={**task.variables, "OMPI_COMM_WORLD_RANK": str(task.truth["rank"])})
            assert (found.resolver, found.rank) == ("flux", task.truth["rank"])


class TestHtcondor(OfSteps, ResolverContract):
    resolver = HTCONDOR
    job_ids = st.builds("{}.{}".format, SMALL, SMALL)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name == "_CONDOR_REMOTE_SPOOL_DIR"


class TestPmix(OfSteps, ResolverContract):
    resolver = PMIX
    job_ids = st.builds("prterun-{}-{}@{}".format, st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), SMALL, SMALL)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name in {"pmix.lrank", "pmix.local.size"}

    def test_without_an_answer_of_pmix_its_rank_is_one_of_an_unknown_number(self) -> None:
        task = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-vm-7@1"}
        with pytest.raises(NotAsked, match=r"PMIX_RANK='1' and PMIX_NAMESPACE='prterun-vm-7@1' set.*\(rank 1\)"):
            resolve(env=task)
        assert resolve(env=task, rank=1, world_size=3).world_size == 3
        daemon_of_a_step = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0"}
        assert resolve(env={**daemon_of_a_step, **task, "pmix.job.size": "3"}).resolver == "pmix"

    def test_a_launcher_that_serves_pmix_besides_says_more(self) -> None:
        for mark in ("OMPI_COMM_WORLD_RANK", "FLUX_TASK_RANK", "PMI_RANK"):
            task = Environ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "7", mark: "1"})
            assert isinstance(self.resolver.resolve(task), NoMatch)


class TestPals(OfMpi, ResolverContract):
    resolver = PALS
    job_ids = st.uuids().map(str)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name not in {"PALS_RANKID", "PALS_SIZE"} or None

    TASK: ClassVar = {"PALS_RANKID": "3", "PALS_LOCAL_RANKID": "0", "PALS_LOCAL_SIZE": "2", "PALS_NODEID": "1"}

    def test_the_size_is_pmis_where_pals_does_not_say_it(self) -> None:
        spec = resolve(env={**self.TASK, "PMI_RANK": "3", "PMI_SIZE": "4", "PALS_APID": "a-b"})
        assert (spec.resolver, spec.rank, spec.world_size, spec.job_id) == ("pals", 3, 4, "a-b")
        assert (spec.local_rank, spec.local_world_size, spec.node_rank) == (0, 2, 1)
        with pytest.raises(MissingVariable, match="PALS_SIZE"):
            resolve(env=self.TASK)
        assert resolve(env={**self.TASK, "PALS_SIZE": "8", "PMI_SIZE": "4"}).world_size == 8

    def test_tasks_of_slurm_and_flux_for_crays_mpi_are_theirs(self) -> None:
        step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "PALS_APID": "7.0"}
        flux = {"FLUX_JOB_TMPDIR": "/tmp/flux-1/jobtmp-0-f1", "PALS_SPOOL_DIR": "/tmp/flux-1/jobtmp-0-f1"}
        for other in (step, flux):
            assert isinstance(self.resolver.resolve(Environ(self.TASK | {"PMI_SIZE": "4"} | other)), NoMatch)
            lost = {name: text for name, text in other.items() if not name.startswith("PALS")}
            assert resolve(env=self.TASK | {"PMI_SIZE": "4"} | lost, resolver="pals").rank == 3


class TestJsrun(OfMpi, ResolverContract):
    resolver = JSRUN
    job_ids = st.builds("{}.{}".format, SMALL, SMALL)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name not in {"JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"}

    def test_each_field_is_read_from_its_variable(self) -> None:
        said = {"RANK": "5", "SIZE": "6", "LOCAL_RANK": "1", "LOCAL_SIZE": "3"}
        spec = resolve(env={f"JSM_NAMESPACE_{name}": text for name, text in said.items()})
        assert spec == DistSpec(rank=5, world_size=6, local_rank=1, local_world_size=3, resolver="jsrun")

    def test_it_wins_over_open_mpis_variables_which_it_sets_too(self) -> None:
        own = {"JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "4", "LSB_JOBID": "77"}
        mpi = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
        spec = resolve(env=own | mpi)
        assert (spec.resolver, spec.rank, spec.job_id) == ("jsrun", 3, "77")


class TestMvapich(OfMpi, ResolverContract):
    resolver = MVAPICH

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name in {"MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"}

    def test_the_newer_names_are_read_too(self) -> None:
        said = {"RANK": "3", "SIZE": "4", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"}
        spec = resolve(env={f"MVP_COMM_WORLD_{name}": text for name, text in said.items()})
        assert (spec.rank, spec.world_size, spec.local_rank, spec.local_world_size) == (3, 4, 1, 2)
        old = {f"MV2_COMM_WORLD_{name}": text for name, text in said.items()}
        assert resolve(env=old) == spec
        left = {name.replace("MV2", "MVP"): "0" for name in old}
        assert resolve(env=old | left) == spec


class TestHorovod(OfMpi, ResolverContract):
    resolver = HOROVOD
    job_ids = st.builds("10.0.0.{}/{}".format, st.integers(1, 254), st.integers(1024, 65535))

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name not in {"HOROVOD_RANK", "HOROVOD_SIZE"}

    def test_each_field_is_read_from_its_variable(self) -> None:
        said = {"RANK": "5", "SIZE": "6", "LOCAL_RANK": "1", "LOCAL_SIZE": "3", "CROSS_RANK": "1", "CROSS_SIZE": "2"}
        spec = resolve(env={f"HOROVOD_{name}": text for name, text in said.items()})
        assert spec == DistSpec(rank=5, world_size=6, local_rank=1, local_world_size=3, resolver="horovod")
