"""The contract for the REST profile: over real loopback connections, and in process for replayable runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from simulators.clock import ManualClock
from simulators.kit import create_app
from tests.hospital.contract import HospitalContract
from tests.support.hospital import MORNING, Connected, a_simulator, connect
from tests.support.serving import serve
from tests.support.transports import InProcessTransport
from wire.http import HttpClient


class TestOverLoopback(HospitalContract):
    @pytest.fixture
    async def connected(self) -> AsyncIterator[Connected]:
        clock = ManualClock(MORNING)
        simulator = a_simulator(clock)
        async with serve(create_app(simulator)) as base_url, HttpClient() as client:
            yield connect(simulator, clock, client, f"{base_url}/his-bridge/")


class TestInProcess(HospitalContract):
    @pytest.fixture
    async def connected(self) -> Connected:
        clock = ManualClock(MORNING)
        simulator = a_simulator(clock)
        transport = InProcessTransport({"http://127.0.0.1": simulator})
        return connect(simulator, clock, transport, "http://127.0.0.1")
