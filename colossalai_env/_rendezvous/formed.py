"""After the roll call: Gathered, while the process group is made on torch's store; Connected, until it is closed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import attrs

from colossalai_env._addresses import address_towards, interface_of
from colossalai_env._calls import start
from colossalai_env.errors import ColossalaiEnvError, RankFailed

from .entered import Entered
from .protocol import keys
from .protocol.connecting import announce, monitor_connect, part, report_connect_failure, settle
from .protocol.connecting import close as depart
from .protocol.report import RankReport, read_reports
from .protocol.requests import post, read
from .protocol.timing import SILENCE
from .store_client import StoreLost
from .torch_store import Store

log = logging.getLogger("colossalai_env")

Explain = Callable[[Exception], tuple[ColossalaiEnvError, bool]]
"""Puts an error of a backend into our words, and says whether its cause is surely on this rank."""


@attrs.frozen
class Gathered:
    """A rank whose roll call ended well."""

    entered: Entered

    def interface(self, own: str | None) -> str | None:
        """Return the interface through which rank 0 and this rank reach each other, where they are on two hosts.

        `own` is the address by which this rank reached the store. A rank that reached it by loopback takes rank 0's,
        which rank 0 learns from the others' addresses.
        """
        entered = self.entered
        if entered.leads:
            own = own or next(filter(None, map(address_towards, self._other_addresses())), None)
        found = interface_of(own) if own is not None else None
        if entered.leads:
            self._post({keys.INTERFACE.name: found or ""})
        elif own is None:
            found = entered.drive(read(keys.INTERFACE.name, min(SILENCE, max(0.0, entered.frame.deadline.remaining))))
        return found or None

    def _other_addresses(self) -> Iterator[str]:
        here = self.entered.frame.here.host
        reports = read_reports(self.entered.drive(read(keys.REPORTS.name)))
        return (one.address for one in reports if one.host != here and one.address is not None)

    def store(self) -> Store:
        """Return torch's own store, on which a group can be made; raise `LostRanks` where it does not connect."""
        entered = self.entered
        call = entered.torch_store()
        if not call.wait(entered.frame.deadline.remaining):
            raise entered.frame.lost(entered.record, "torch does not connect to it")
        return call.result()

    def connect(self, make: Callable[[Store], None], explain: Explain) -> "Connected":
        """Make the process group on torch's store, which `make` does, and learn of ranks that fail at it.

        Raises what `explain` makes of this rank's own error, or a verdict on others.
        """
        entered = self.entered
        entered.client.release_idle()
        store = entered.torch_store()
        task = start(lambda: make(store.result()))
        entered.calls.append(task)
        try:
            entered.drive(monitor_connect(entered.rank, entered.frame.deadline), task)
            try:
                task.result()
            except (RuntimeError, ValueError) as error:
                raise self._failed(*explain(error)) from None
        except ColossalaiEnvError:
            with suppress(StoreLost):
                entered.client.drive(part(entered.frame.deadline, entered.served), entered.frame.deadline)
            raise
        try:
            entered.client.drive(announce(entered.rank), entered.frame.deadline)
        except StoreLost:
            log.debug("could not report that the group is made")
        return Connected(entered)

    def fail(self, mine: RankReport) -> None:
        """Report to the others why this rank ends."""
        self._post({keys.BROKEN.name: str(RankFailed(str(mine.error), str(mine)))})

    def interrupt(self, mine: RankReport) -> None:
        """Do so where this rank is stopped, and let them read it."""
        self.entered.interrupt(mine)

    def close(self) -> None:
        """Let go of the store."""
        self.entered.close()

    def _failed(self, failure: ColossalaiEnvError, own: bool) -> ColossalaiEnvError:
        """Report that this rank's connect failed; raise what others say of it, or that they give no sign."""
        entered, sentence = self.entered, str(failure)
        if own:
            self._post({keys.FAILED.of(entered.rank): sentence})
            self._post({keys.BROKEN.name: sentence})
            return failure
        entered.drive(report_connect_failure(entered.rank, entered.frame.deadline, sentence))
        return failure

    def _post(self, entries: dict[str, str]) -> None:
        """Set keys, as far as the store still answers."""
        try:
            self.entered.client.drive(post(entries), self.entered.frame.deadline)
        except StoreLost:
            log.debug("could not post %s", ", ".join(entries))


@attrs.frozen
class Connected:
    """A rank whose process group is made."""

    entered: Entered

    def settle(self) -> None:
        """Wait for ranks that are still connecting, which this rank's leaving would cut off."""
        entered = self.entered
        with suppress(StoreLost):
            entered.client.drive(settle(entered.rank, entered.frame.identity.others + 1, entered.frame.deadline))

    def close(self) -> None:
        """Report this rank's end; whoever serves the store keeps it for a moment for those that still use it."""
        entered = self.entered
        try:
            entered.client.drive(depart(entered.frame.deadline, entered.served))
        except StoreLost:
            log.debug("the store went before this rank did")
        finally:
            entered.close()
