"""The HIS asks the product for a paper's address when it prints one: docs/connect-a-hospital.md, section 10."""

from __future__ import annotations

import hmac
import itertools
import json

import aiohttp

from simulators.hospital import HospitalSimulator
from simulators.hospital_signing import event_headers, mac

PATH = "/his/v1/bill-links"
EVENTS_PATH = "/his/v1/events"
SECONDS = 5.0


class LinkAsker:
    """Knows the address and the key from the agreement about events; asks once more after a lost answer."""

    def __init__(self, session: aiohttp.ClientSession, hospital: HospitalSimulator) -> None:
        self._session = session
        self._hospital = hospital
        self._asked = itertools.count(1)

    async def __call__(self, bill_id: str) -> str:
        """The address for this bill's paper; empty when there is no answer that can be trusted."""
        url = self._hospital.events_url.replace(EVENTS_PATH, PATH)
        body = json.dumps({"bill_id": bill_id}).encode()
        nonce = f"paper-{next(self._asked):010d}"
        key_id = self._hospital.key_id
        headers = event_headers(
            key_id,
            self._hospital.keys[key_id],
            target=PATH,
            now=self._hospital.clock.now(),
            nonce=nonce,
            body=body,
        )
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=timeout) as answer:
                content = await answer.read()
                signed = {name.lower(): value for name, value in answer.headers.items()}
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            return ""
        text = f"{status}\n{nonce}\n{signed.get('zhenfu-timestamp', '')}\n{signed.get('zhenfu-nonce', '')}"
        expected = mac(self._hospital.keys.get(signed.get("zhenfu-key", ""), ""), text, content)
        if not hmac.compare_digest(expected.encode(), signed.get("zhenfu-signature", "").encode()):
            return ""
        said = json.loads(content)
        return str(said["url"]) if said.get("outcome") == "ok" and said.get("bill_id") == bill_id else ""
