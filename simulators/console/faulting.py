"""The faults of the simulated counterparties as switches: off, for the next call, for every call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from simulators.console.world import Mistake
from simulators.faults import Faults

COUNTERPARTIES = {"wechatpay": "微信支付", "hospital": "医院 HIS", "wechat": "微信平台", "sms": "短信"}

Fields = Mapping[str, Any]


class FaultSwitches:
    """What is switched on, for the page to show; the faults themselves strike in the simulators."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._scripted: Counter[str] = Counter()  # arranged for the next call
        self._struck_before: dict[str, int] = {}

    async def catalogue(self, asked: Fields) -> dict[str, Any]:
        """The catalogue, by counterparty, each with what is set and how often it struck."""
        faults = self._faults
        return {
            "groups": [
                {
                    "counterparty": counterparty,
                    "title": title,
                    "faults": [
                        {
                            "name": fault.name,
                            "title": fault.title_zh,
                            "needs_person": fault.needs_person,
                            "mode": self._mode(fault.name),
                            "struck": faults.struck[fault.name],
                        }
                        for fault in faults.catalogue.values()
                        if fault.counterparty == counterparty
                    ],
                }
                for counterparty, title in COUNTERPARTIES.items()
            ]
        }

    def _mode(self, name: str) -> str:
        if self._faults.rates.get(name, 0.0) > 0:
            return "always"
        struck = self._faults.struck[name] - self._struck_before.get(name, 0)
        return "once" if self._scripted[name] > struck else "off"

    def switched_on(self) -> list[dict[str, str]]:
        return [
            {"name": name, "title": fault.title_zh, "mode": mode}
            for name, fault in self._faults.catalogue.items()
            if (mode := self._mode(name)) != "off"
        ]

    async def set_fault(self, asked: Fields) -> dict[str, Any]:
        name, mode, faults = str(asked.get("name", "")), asked.get("mode"), self._faults
        if name not in faults.catalogue:
            raise Mistake("没有这种故障")
        if mode == "once":
            if self._mode(name) == "off":
                self._scripted[name], self._struck_before[name] = 0, faults.struck[name]
            faults.script(name)
            self._scripted[name] += 1
        elif mode == "always":
            faults.rate(name, 1.0)
        elif mode == "off":
            self._switch_off(name)
        else:
            raise Mistake("不认识的开关")
        return {"mode": self._mode(name)}

    def _switch_off(self, name: str) -> None:
        """One fault off, the others as they were: what waits for its next call can only be dropped as a whole."""
        faults = self._faults
        others_always = {other: rate for other, rate in faults.rates.items() if rate > 0 and other != name}
        others_once = [other for other in faults.catalogue if other != name and self._mode(other) == "once"]
        left = {
            other: self._scripted[other] - (faults.struck[other] - self._struck_before.get(other, 0))
            for other in others_once
        }
        faults.clear()
        self._scripted.clear()
        self._struck_before.clear()
        for other, rate in others_always.items():
            faults.rate(other, rate)
        for other, times in left.items():
            faults.script(other, times=times)
            self._scripted[other], self._struck_before[other] = times, faults.struck[other]

    async def clear_faults(self, asked: Fields) -> dict[str, Any]:
        self._faults.clear()
        self._scripted.clear()
        self._struck_before.clear()
        return {}
