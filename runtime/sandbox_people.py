"""The people of the sandbox: each of the HIS's patients with a phone in hand, and somebody's daughter."""

from __future__ import annotations

from dataclasses import dataclass

from simulators.console.phones import Person
from simulators.hospital_stock import READY_PEOPLE
from simulators.wechat import App, WechatPlatformSimulator

UNKNOWN_PHONE = "19900000099"  # of somebody whose phone the HIS does not have
CHINESE_DOCUMENTS = frozenset({"id_card", "birth_certificate", "hk_macau_permit", "taiwan_permit", "hospital_card"})
DAUGHTER, DAUGHTERS_PHONE = "王丽", "19900000011"  # the second number in her mother's record


@dataclass(frozen=True, slots=True)
class Invitations:
    """Everybody has WeChat, follows the account and allows messages."""

    wechat: WechatPlatformSimulator
    service: App
    miniprogram: App

    def all(self) -> tuple[Person, ...]:
        """The first one is ready when the page opens."""
        people: list[Person] = []
        for patient in READY_PEOPLE:
            same = [other.patient_id for other in READY_PEOPLE if other.identifiers[0] == patient.identifiers[0]]
            if same[0] != patient.patient_id:
                continue  # an old record of somebody who is here already
            phone = patient.phones[0] if patient.phones else UNKNOWN_PHONE
            holder = next((person for person in people if person.phone == phone), None)  # a mother, for her child
            type_, value = patient.identifiers[0]
            people.append(
                Person(
                    name=patient.name,
                    phone=phone,
                    identifier_type=type_,
                    identifier=value,
                    his_patient_ids=tuple(same),
                    open_id_user_key=holder.open_id_user_key if holder else self._phone(patient.name, phone),
                    note_zh=patient.story,
                    language="zh-CN" if type_ in CHINESE_DOCUMENTS else "en-US",
                )
            )
        return (people[0], self._daughter_of(people[0]), *people[1:])

    def _daughter_of(self, elder: Person) -> Person:
        """Nobody's patient here; she binds her mother."""
        return Person(
            name=DAUGHTER,
            phone=DAUGHTERS_PHONE,
            identifier_type=elder.identifier_type,
            identifier=elder.identifier,
            open_id_user_key=self._phone(DAUGHTER, DAUGHTERS_PHONE),
            patient_name=elder.name,
            note_zh=f"家属：{elder.name}的女儿，替母亲缴费",
        )

    def _phone(self, name: str, phone: str) -> str:
        user = self.wechat.add_user(name, phone=phone)
        self.wechat.follow(user, self.service.app_id)
        for template_id in self.miniprogram.templates:
            self.wechat.grant(user, self.miniprogram.app_id, template_id)
        return user
