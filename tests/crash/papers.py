"""A person with a paper prescription: scans, agrees, guesses wrong at times, sees what the paper opens."""

from __future__ import annotations

import random
from uuid import UUID

from core.consents import ConsentKind
from core.errors import FactorLocked, FactorWrong, HospitalUnavailable, NotFound, RequestError
from core.models import Payer
from core.paper import Paper as PaperOfBill
from core.paper import PaperStage, PaperView, paper_token
from core.services import Services
from core.tenancy import scoped
from tests.crash.asking import TRIES_MAX, Asker, GaveUp
from tests.crash.world import PAPER_KEY, Phone, World

VERSION = "1"
WRONG = "0000"


class Paper(Asker):
    def __init__(self, world: World, phone: Phone, patient: str, bill: str, draw: random.Random, key: str) -> None:
        super().__init__(world, phone, draw, key)
        self.patient, self.bill = patient, bill
        self.token = ""

    async def opened(self) -> UUID:
        """The patient, as we know him, once the paper is open. Raises GaveUp."""
        for _ in range(TRIES_MAX):
            try:
                view = await self.ask(self._look, "scan")
                if view.stage is PaperStage.CONSENT:
                    await self.ask(self._agree, "agree")
                    continue
                if view.stage is PaperStage.OPEN:
                    self._check(view)
                    assert view.patient_id is not None
                    return view.patient_id
                if self.draw.random() < 0.2:
                    await self._guess_wrong()
                await self.ask(lambda services: self._prove(services, self._last_four()), "prove")
            except (HospitalUnavailable, NotFound, FactorLocked) as problem:
                self.note(problem)
                await self.pause(3, 60)
        raise GaveUp

    async def scanned_again(self) -> None:
        """Whoever paid sees his payment on the paper; one that came alive again is known once the channel tells."""
        try:
            view = await self.ask(self._look, "scan again")
        except RequestError as problem:
            self.note(problem)
            return
        self.world.scheduler.counts["papers scanned again"] += 1
        if not view.own_order_no and self._has_paid() and self.bill not in self.world.knowingly:
            self.world.mistakes.append(f"the paper of {self.bill} does not show its payment to who paid it")

    def _has_paid(self) -> bool:
        numbers = self.world.postgres.query(
            "SELECT p.order_no FROM payment p JOIN payment_line l ON l.payment_id = p.id"
            " WHERE l.his_bill_id = %s AND p.payer_id = %s AND p.status = 'paid'",
            self.bill,
            self.phone.payer_id,
        )
        return bool(numbers)

    async def _guess_wrong(self) -> None:
        try:
            await self.ask(lambda services: self._prove(services, WRONG), "guess")
        except FactorWrong as problem:
            self.note(problem)
        else:
            self.world.mistakes.append(f"{self.phone.name} opened the paper of {self.bill} with a wrong factor")

    def _last_four(self) -> str:
        person = self.world.his.patients[self.patient]
        numbers = [*person.phones, *(value for _, value in person.identifiers)]
        return self.draw.choice(sorted(numbers))[-4:]

    def _check(self, view: PaperView) -> None:
        """A paper opens its bill and those of the same visit, and nothing else."""
        assert view.bill is not None
        visit = self.world.his.bills[self.bill].visit_no
        for shown in (view.bill, *view.others):
            if shown.bill.his_bill_id != self.bill and self.world.his.bills[shown.bill.his_bill_id].visit_no != visit:
                self.world.mistakes.append(f"the paper of {self.bill} opens {shown.bill.his_bill_id}")

    # ------------------------------------------------------------ what the pages do

    async def _look(self, services: Services) -> PaperView:
        return await services.papers.look(await self._read(services), await self._payer(services))

    async def _agree(self, services: Services) -> None:
        await services.consents.give(await self._payer(services), ConsentKind.PERSONAL, version=VERSION, way="h5")

    async def _prove(self, services: Services, factor: str) -> UUID:
        return await services.papers.prove(await self._read(services), await self._payer(services), factor)

    async def _read(self, services: Services) -> PaperOfBill:
        if not self.token:
            self.token = await self._printed(services)
        return await services.papers.read(self.token)

    async def _printed(self, services: Services) -> str:
        """What stands on the paper, in the way that this hospital prints."""
        if self.world.day.paper_code == "his_makes":
            return paper_token(PAPER_KEY.encode(), "renhe", "", self.bill)
        if self.world.day.paper_code == "his_asks":
            (site,) = await services.institutions.sites(self.world.institution_id)
            return await services.papers.link(site, self.bill)
        return await services.papers.by_barcode(await self._payer(services), self.bill)

    async def _payer(self, services: Services) -> Payer:
        return await scoped(self.world.institution_id).of(Payer).get(id=self.phone.payer_id)
