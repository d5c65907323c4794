"""The whole product on simulated counterparties without a socket: one program, one clock, real PostgreSQL.

Open a database context first (fixture `tortoise`), then `await House.build()`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from bot.conversation import ANSWER_SECONDS
from bot.wechat.callback import Callback
from core.due import DueRow
from core.ids import Ids
from core.keyring import Keyring
from core.memory import MemoryLimiter, MemoryTokenStore
from core.models import ChatAccountRow, Payer, Payment, PaymentLine
from core.money import Fen
from core.outside import Background
from core.payments import Started
from core.ports import NOTICE_KINDS, ChatIdentity, Identifier, IdentifierType, MessageKind, TokenStore
from core.services import Services
from core.starting import StartPayment
from core.tenancy import across_institutions
from core.transactions import rows
from runtime.bootstrap import build_callback, build_services
from runtime.setup import Setup
from scheduler.loops import Loop, claim_due, loops
from simulators.clock import ManualClock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.kit import Deliveries, Request, Response, deliver_one
from simulators.sms import SmsSimulator
from simulators.wechat import WechatPlatformSimulator
from simulators.wechat_push_line import push_one
from simulators.wechatpay import WechatPaySimulator
from tests.support.remembered import remember_private_keys
from tests.support.transports import HeldTransport, InProcessDownloads, InProcessTransport

MORNING = datetime(2026, 5, 6, 2, 0, tzinfo=UTC)  # ten o'clock in Shanghai
PUBLIC_URL = "http://house.test"
PAY_URL, HIS_URL, CHAT_URL = "https://pay.test", "https://his.test", "https://chat.test"
SMS_URL = "https://sms.test"
SMS_SIGN = "仁和医院"
MCHID = "1900000109"
ELDER, LABOURER = "P10001", "P10005"
METHOD = "wechatpay/miniprogram/wechat"
TEMPLATE_FIELDS = {"thing1": "项目", "amount2": "金额", "thing3": "提示"}
STEPS_MAX = 2000
PUSH_TOKEN = "tokenOfTheHouse"
PUSH_AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

remember_private_keys()


def seeded_bytes(seed: str) -> Callable[[int], bytes]:
    """Randomness that is the same in every run."""
    counter = itertools.count()

    def random_bytes(length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += hashlib.blake2b(f"{seed}/{next(counter)}".encode()).digest()
        return data[:length]

    return random_bytes


class NoBackground:
    """Leaves everything to the loops."""

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> bool:
        return False


@dataclass(kw_only=True)
class House:
    """One hospital, one mini program, one service account, and its services."""

    clock: ManualClock
    faults: Faults
    pay: WechatPaySimulator
    his: HospitalSimulator
    chat: WechatPlatformSimulator
    sms: SmsSimulator
    services: Services
    setup: Setup
    tokens: TokenStore
    transport: HeldTransport
    callback: Callback | None = field(init=False, default=None)  # once the chat is open
    institution_id: UUID = field(init=False)
    site_id: UUID = field(init=False)
    merchant_account_id: UUID = field(init=False)
    mini_app_id: str = field(init=False)
    service_app_id: str = field(init=False)
    keys: Any = field(default_factory=itertools.count)
    users: dict[UUID, str] = field(default_factory=dict)  # payer → the platform's user
    mini_template: str = field(init=False)

    @classmethod
    async def build(
        cls,
        *,
        seed: int = 7,
        settings: dict[str, Any] | None = None,
        sms: bool = False,
        background: Background | None = None,
        **his: Any,
    ) -> House:
        """`sms`: the hospital has an SMS account, too. Without `background` everything is left to the loops."""
        clock = ManualClock(MORNING)
        faults = Faults(seed=seed)
        pay = WechatPaySimulator(clock=clock, faults=faults, seed=seed)
        hospital = HospitalSimulator(clock=clock, faults=faults, seed=seed, **his)
        chat = WechatPlatformSimulator(clock=clock, faults=faults, seed=seed)
        phones = SmsSimulator(clock=clock, faults=faults, seed=seed)
        ids = Ids(clock, seeded_bytes(f"ids/{seed}"))
        tokens = MemoryTokenStore(clock=clock)
        transport = HeldTransport(
            InProcessTransport({PAY_URL: pay, HIS_URL: hospital, CHAT_URL: chat, SMS_URL: phones})
        )
        keyring = Keyring(current="k1", keys={"k1": b"1" * 32}, lookup_key=b"2" * 32)
        services = build_services(
            clock=clock,
            ids=ids,
            keyring=keyring,
            transport=transport,
            tokens=tokens,
            limiter=MemoryLimiter(clock=clock),
            background=background or NoBackground(),
            public_url=PUBLIC_URL,
            program="test",
            nonce=lambda: seeded_nonce(),
            downloads=InProcessDownloads(transport),
        )
        nonces = seeded_bytes(f"nonce/{seed}")

        def seeded_nonce() -> str:
            return nonces(16).hex()

        pay.bills.base_url = PAY_URL
        house = cls(
            clock=clock,
            faults=faults,
            pay=pay,
            his=hospital,
            chat=chat,
            sms=phones,
            services=services,
            setup=Setup(ids, keyring),
            tokens=tokens,
            transport=transport,
        )
        await house._furnish(settings or {})
        if sms:
            await house._furnish_sms()
        return house

    async def _furnish(self, settings: dict[str, Any]) -> None:
        setup, his = self.setup, self.his
        self.institution_id = await setup.institution(code="renhe", name_zh="仁和医院", settings=settings)
        site = await setup.hospital_site(
            self.institution_id,
            base_url=HIS_URL,
            params={"key_id": his.key_id, "secret": his.keys[his.key_id]},
            capabilities={
                "lock": not his.no_lock,
                "lock_query": not his.no_lock,
                "events": not his.no_events,
                "statement": True,
                "refund_check": not his.no_refund,
                "refund": not his.no_refund,
                "refund_query": not his.no_refund,
                "partial_refund": not his.no_refund,
                "confirm_unit": his.confirm_unit,
            },
        )
        self.site_id = site.id
        his.events_url = f"{PUBLIC_URL}/his/v1/events/{site.event_token}"
        official = self.chat.add_official_account("仁和医院")
        mini = self.chat.add_mini_program("仁和医院缴费", pages={"pages/payment/index", "pages/bills/index"})
        self.chat.link(official.app_id, mini.app_id)
        self.mini_app_id, self.service_app_id = mini.app_id, official.app_id
        for app, platform in ((official, "wechat_service"), (mini, "wechat_miniprogram")):
            template = self.chat.add_template(app.app_id, "缴费通知", TEMPLATE_FIELDS, long_term=True)
            self.mini_template = template
            entry = json.dumps({"id": template, "fields": {"thing1": "title", "amount2": "amount", "thing3": "note"}})
            await setup.chat_account(
                self.institution_id,
                platform=platform,
                app_id=app.app_id,
                params={"secret": app.secret, "base_url": CHAT_URL, "miniprogram_app_id": mini.app_id},
                templates={kind.value: entry for kind in NOTICE_KINDS},
            )
        merchant = self.pay.add_merchant(MCHID, appids={mini.app_id, official.app_id})
        account = await setup.merchant_account(
            self.institution_id,
            channel="wechatpay",
            merchant_no=MCHID,
            params={
                "app_ids": f"{mini.app_id} {official.app_id}",
                "merchant_private_key": merchant.private_key_pem,
                "merchant_serial": merchant.serial_no,
                "api_v3_key": str(merchant.api_v3_key),
                "public_key_id": self.pay.public_key.serial,
                "public_key": self.pay.public_key.public_pem,
                "base_url": PAY_URL,
            },
        )
        self.merchant_account_id = account.id
        await setup.payment_method(self.institution_id, merchant_account_id=account.id, code=METHOD, app_id=mini.app_id)

    async def _furnish_sms(self) -> None:
        self.sms.approve_sign(SMS_SIGN)
        notice = {
            "id": self.sms.approve_template("您的{1}：{2}元，{3}，{4}。"),
            "params": ["title", "amount", "status", "note"],
        }
        code = {"id": self.sms.approve_template("验证码{1}，{2}分钟内有效。", kind="code"), "params": ["code", "=5"]}
        account = self.sms.account
        await self.setup.chat_account(
            self.institution_id,
            platform="sms",
            app_id=account.sdk_app_id,
            params={
                "secret_id": account.secret_id,
                "secret_key": account.secret_key,
                "sign_name": SMS_SIGN,
                "base_url": SMS_URL,
            },
            templates={
                **{kind.value: json.dumps(notice) for kind in NOTICE_KINDS},
                MessageKind.PHONE_CODE.value: json.dumps(code),
            },
        )

    # ------------------------------------------------------------ people

    async def payer(self, name: str = "王秀兰", phone: str = "19900000001") -> Payer:
        """A follower of the service account who has opened the mini program."""
        user = self.chat.add_user(name, phone=phone)
        self.chat.follow(user, self.service_app_id)
        account = await self.services.institutions.chat_account_by_app(self.institution_id, self.mini_app_id)
        official = await self.services.institutions.chat_account_by_app(self.institution_id, self.service_app_id)
        union = f"union-{user}"
        await self.services.patients.payer_for(
            official,
            ChatIdentity(open_id=self.chat.open_id(user, self.service_app_id), union_id=union),
            language="zh",
        )
        payer = await self.services.patients.payer_for(
            account, ChatIdentity(open_id=self.chat.open_id(user, self.mini_app_id), union_id=union), language="zh"
        )
        self.users[payer.id] = user
        return payer

    def user_of(self, payer: Payer) -> str:
        return self.users[payer.id]

    def grant(self, user: str) -> None:
        """This person accepts the mini program's messages."""
        self.chat.grant(user, self.mini_app_id, self.mini_template)

    async def bound(self, payer: Payer, his_patient_id: str = ELDER) -> UUID:
        """The patient whom this payer has bound."""
        person = self.his.patients[his_patient_id]
        type_, value = person.identifiers[0]
        bound = await self.services.patients.bind(
            payer,
            name=person.name,
            identifier=Identifier(type=IdentifierType(type_), value=value),
            phone=person.phones[0],
        )
        return bound.patient_id

    # ------------------------------------------------------------ the chat

    async def open_chat(
        self, *, mode: str = "safe", answer_seconds: float = ANSWER_SECONDS, **params: str
    ) -> ChatAccountRow:
        """From now on the platform pushes what people do in the official account's chat."""
        row = await self.set_params(
            connection="own", push_token=PUSH_TOKEN, push_aes_key=PUSH_AES_KEY, push_mode=mode, **params
        )
        self.callback = self.new_callback(answer_seconds=answer_seconds)
        self.chat.set_callback(
            self.service_app_id,
            url=f"{PUBLIC_URL}/wx/{row.callback_token}",
            token=PUSH_TOKEN,
            aes_key=PUSH_AES_KEY,
            mode=mode,
            check=False,
        )
        return row

    def new_callback(self, *, answer_seconds: float = ANSWER_SECONDS) -> Callback:
        """What another web process would have: the same database and store, a memory of its own."""
        return build_callback(
            self.services, transport=self.transport, tokens=self.tokens, answer_seconds=answer_seconds
        )

    async def set_params(self, **params: str) -> ChatAccountRow:
        """Change params of the official account."""
        keyring = self.services.outside.keyring
        row = await ChatAccountRow.get(app_id=self.service_app_id, institution_id=self.institution_id)
        there = keyring.decrypt_json(row.params_enc, place="chat_account.params")
        row.params_enc = keyring.encrypt_json({**there, **params}, place="chat_account.params")
        await row.save(update_fields=["params_enc"])
        return row

    async def receive_push(self, url: str, request: Request, *, callback: Callback | None = None) -> Response:
        """What the chat platform pushes to us, without a socket."""
        token, query = urlsplit(url).path.rpartition("/")[2], urlsplit(url).query
        at = callback or self.callback
        assert at is not None
        if request.method == "GET":
            said, handled = await at.check(token, query), ""
        else:
            answer = await at.push(token, query, request.body, request.headers.get("content-type", ""))
            said, handled = answer.acknowledgement, answer.handled
        headers = {"content-type": said.content_type} | ({"zhenfu-handled": handled} if handled else {})
        return Response(status=said.status, headers=headers, body=said.body)

    async def push(self) -> int:
        """Deliver every push that is due, one after the other; how many there were."""
        count = 0
        while await push_one(self.chat, self.receive_push):
            count += 1
        return count

    def said(self, user: str) -> list[str]:
        """What the official account has written to this person in the chat: replies and customer messages."""
        entries = self.chat.thread(user, self.service_app_id)
        return [entry["text"] for entry in entries if entry["author"] == "account" and entry["via"] != "template"]

    # ------------------------------------------------------------ paying

    def bill(self, his_patient_id: str = ELDER, total_fen: int = 8650, **changes: Any) -> str:
        return self.his.issue_bill(his_patient_id, total_fen=total_fen, **changes)

    async def start(self, payer: Payer, patient_id: UUID, bill_id: str, **changes: Any) -> Started:
        values: dict[str, Any] = {
            "payer_id": payer.id,
            "institution_id": payer.institution_id,
            "patient_id": patient_id,
            "bills": (("", bill_id),),
            "shown_fen": Fen(self.his.bills[bill_id].to_pay_fen),
            "method": METHOD,
            "key": f"key-{next(self.keys)}",
            **changes,
        }
        return await self.services.starting.start(StartPayment(**values))

    def pay_sheet(self, started: Started, payer_open_id: str = "", *, confirm: bool = True) -> str:
        """The payer confirms (or closes) the pay sheet."""
        assert started.pay is not None
        return str(self.pay.pay(started.order_no, payer_open_id, confirm=confirm))

    async def payment(self, order_no: str) -> Payment:
        return await Payment.get(order_no=order_no, institution_id=self.institution_id)

    async def lines(self, order_no: str) -> list[PaymentLine]:
        return await self.services.payments.lines(await self.payment(order_no))

    # ------------------------------------------------------------ time passes

    async def receive(self, url: str, request: Request) -> Response:
        """What counterparties send to us, without a socket."""
        kind, _, token = urlsplit(url).path.strip("/").rpartition("/")
        receive = self.services.inbounds.receive_notice if kind == "n" else self.services.inbounds.receive_event
        acknowledgement = await receive(token, request.headers, request.body)
        return Response(status=acknowledgement.status, body=acknowledgement.body)

    async def step(self) -> bool:
        """Everything that is due now, once; False when nothing was."""
        moved = False
        for simulator in (self.pay, self.his):
            while await deliver_one(simulator, self.receive):
                moved = True
        if self.callback is not None and await self.push():
            moved = True
        for loop in self.loops():
            for row in await self._claim(loop):
                moved = True
                await loop.work(row)
        return moved

    def loops(self) -> list[Loop]:
        return [loop for loop in loops(self.services) if loop.table != "hospital_site"]

    async def _claim(self, loop: Loop) -> list[DueRow]:
        return await claim_due(loop, self.services)

    async def next_due_at(self) -> datetime | None:
        tables = " UNION ALL ".join(f"SELECT min(due_at) AS due_at FROM {loop.table}" for loop in self.loops())
        with across_institutions("a house sleeps until anything is due"):  # one question instead of one for each loop
            moments: list[datetime | None] = [row["due_at"] for row in await rows(tables)]
        deliveries: list[Deliveries] = [self.pay.deliveries, self.his.deliveries]
        if self.callback is not None:
            deliveries.append(self.chat.deliveries)
        moments += [pile.next_due_at() for pile in deliveries]
        return min((moment for moment in moments if moment is not None), default=None)

    async def settle(self, *, within: timedelta = timedelta(days=3)) -> None:
        """Let time pass until nothing is due any more, or `within` is over."""
        end = self.clock.now() + within
        for _ in range(STEPS_MAX):
            if await self.step():
                continue
            due_at = await self.next_due_at()
            if due_at is None or due_at > end:
                return
            self.clock.advance(max(due_at - self.clock.now(), timedelta(0)))
        raise AssertionError("the house does not come to rest")
