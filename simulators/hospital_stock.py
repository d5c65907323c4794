"""What the simulated hospital starts with: people, doctors, goods and where to go. All of it is invented.

Identity numbers have a right check digit and an area code (9999…) that no person carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK_CHARACTERS = "10X98765432"


def id_card(birth: str, serial: int) -> str:
    """An 18-character identity number for a birth date (YYYY-MM-DD) in an area that does not exist."""
    first = f"999901{birth.replace('-', '')}{serial:03d}"
    total = sum(int(digit) * weight for digit, weight in zip(first, WEIGHTS, strict=True))
    return first + CHECK_CHARACTERS[total % 11]


@dataclass(frozen=True, kw_only=True)
class Person:
    """One entry in the HIS's patient index; one human being may have several."""

    patient_id: str
    name: str
    phones: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    birth_date: str = ""
    story: str = field(default="", compare=False)  # for the console page


@dataclass(frozen=True, kw_only=True)
class Doctor:
    name: str
    department: str


@dataclass(frozen=True, kw_only=True)
class Goods:
    name: str
    specification: str
    unit: str
    price_fen: int


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of bill as the HIS writes it."""

    word: str  # in the profile
    text: str  # the HIS's own
    title: str
    prefix: str  # of the bill number
    guide_text: str
    goods: tuple[Goods, ...]


_ELDER_CARD = id_card("1948-03-12", 17)

READY_PEOPLE: tuple[Person, ...] = (
    Person(
        patient_id="P10001",
        name="王秀兰",
        phones=("19900000001", "19900000011"),
        identifiers=(("id_card", _ELDER_CARD), ("hospital_card", "00100001")),
        birth_date="1948-03-12",
        story="老年人，医院里有两个档案号；手机号是她的和女儿的",
    ),
    Person(
        patient_id="P00417",
        name="王秀兰",
        phones=("19900000001",),
        identifiers=(("id_card", _ELDER_CARD), ("hospital_card", "00000417")),
        birth_date="1948-03-12",
        story="同一位老年人的旧档案",
    ),
    Person(
        patient_id="P10002",
        name="陈静",
        phones=("19900000002",),
        identifiers=(("id_card", id_card("1993-07-21", 24)), ("hospital_card", "00100002")),
        birth_date="1993-07-21",
        story="婴儿的母亲",
    ),
    Person(
        patient_id="P10003",
        name="陈静之女",
        phones=("19900000002",),
        identifiers=(("birth_certificate", "T990000003"), ("hospital_card", "00100003")),
        birth_date="2026-01-09",
        story="婴儿，没有身份证；手机号是母亲的",
    ),
    Person(
        patient_id="P10004",
        name="赵国强",
        phones=("19900000004",),
        identifiers=(("id_card", id_card("1975-11-02", 48)), ("hospital_card", "00100004")),
        birth_date="1975-11-02",
        story="职工医保",
    ),
    Person(
        patient_id="P10005",
        name="李大山",
        phones=("19900000005",),
        identifiers=(("id_card", id_card("1988-05-30", 51)), ("hospital_card", "00100005")),
        birth_date="1988-05-30",
        story="外来务工，没有医保",
    ),
    Person(
        patient_id="P10006",
        name="MARTIN EXAMPLE",
        phones=("19900000006",),
        identifiers=(("passport", "X99000006"), ("hospital_card", "00100006")),
        birth_date="1982-02-14",
        story="持护照的外国人",
    ),
    Person(
        patient_id="P10007",
        name="周小明",
        phones=("19900000007",),
        identifiers=(("id_card", id_card("2000-09-09", 12)), ("hospital_card", "00100007")),
        birth_date="2000-09-09",
        story="先诊疗后付费，昨天的费用还没有缴",
    ),
    Person(
        patient_id="P10008",
        name="何佩玲",
        phones=("19900000008",),
        identifiers=(("hk_macau_permit", "H99000008"), ("hospital_card", "00100008")),
        birth_date="1969-12-25",
        story="港澳居民",
    ),
    Person(
        patient_id="P10009",
        name="林志成",
        phones=("19900000009",),
        identifiers=(("taiwan_permit", "99000009"), ("hospital_card", "00100009")),
        birth_date="1979-04-04",
        story="台湾居民",
    ),
    Person(
        patient_id="P10010",
        name="ANNA EXAMPLE",
        phones=("19900000010",),
        identifiers=(("foreign_permanent_resident", "EXA990110000010"), ("hospital_card", "00100010")),
        birth_date="1990-10-10",
        story="外国人永久居留",
    ),
    Person(
        patient_id="P10012",
        name="孙无机",
        phones=(),
        identifiers=(("hospital_card", "00100012"),),
        story="医院没有登记手机号",
    ),
)

DOCTORS: tuple[Doctor, ...] = (
    Doctor(name="张医生", department="内科门诊"),
    Doctor(name="刘医生", department="中医科门诊"),
    Doctor(name="吴医生", department="儿科门诊"),
    Doctor(name="郑医生", department="骨科门诊"),
)

KINDS: dict[str, Kind] = {
    kind.word: kind
    for kind in (
        Kind(
            word="western",
            text="西药费",
            title="西药处方",
            prefix="CF",
            guide_text="请到门诊楼1楼西药房3号窗口取药",
            goods=(
                Goods(name="阿莫西林胶囊", specification="0.25g×24粒", unit="盒", price_fen=1280),
                Goods(name="布洛芬缓释胶囊", specification="0.3g×20粒", unit="盒", price_fen=1950),
                Goods(name="苯磺酸氨氯地平片", specification="5mg×28片", unit="盒", price_fen=2899),
                Goods(name="氯雷他定片", specification="10mg×6片", unit="盒", price_fen=1433),
            ),
        ),
        Kind(
            word="chinese",
            text="中草药费",
            title="中药处方",
            prefix="CF",
            guide_text="请到门诊楼1楼中药房2号窗口取药，代煎药下午3点后取",
            goods=(
                Goods(name="黄芪", specification="饮片", unit="克", price_fen=9),
                Goods(name="当归", specification="饮片", unit="克", price_fen=17),
                Goods(name="甘草片", specification="饮片", unit="克", price_fen=7),
            ),
        ),
        Kind(
            word="treatment",
            text="检查检验费",
            title="检查检验",
            prefix="YJ",
            guide_text="请到门诊楼2楼检验科抽血处排队，需空腹",
            goods=(
                Goods(name="血常规", specification="", unit="次", price_fen=2000),
                Goods(name="肝功能", specification="", unit="次", price_fen=6800),
                Goods(name="胸部正位片", specification="", unit="次", price_fen=9500),
            ),
        ),
        Kind(
            word="nutrition",  # no profile knows this kind: it must still be payable
            text="膳食指导费",
            title="膳食指导",
            prefix="QT",
            guide_text="请到门诊楼3楼营养科",
            goods=(Goods(name="膳食指导", specification="", unit="次", price_fen=3050),),
        ),
    )
}
