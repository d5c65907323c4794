"""The sandbox's own routes beside the simulated Alipay: `/_…`, loopback only, unknown to the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulators.alipay_books import beijing_time
from simulators.alipay_faults import FAULTS
from simulators.kit import Request, Response

if TYPE_CHECKING:
    from simulators.alipay import AlipaySimulator


def answer_console(simulator: AlipaySimulator, request: Request) -> Response:
    """`/_…` on loopback: what the console page shows and what its buttons do."""
    try:
        asked = request.json() if request.method == "POST" else {}
        if not isinstance(asked, dict):
            raise ValueError("must be an object")
        value = _answer(simulator, request.method, request.path, asked)
    except (KeyError, TypeError, ValueError) as error:
        return Response.of_json({"error": f"{type(error).__name__}: {error}"}, 400)
    return Response.of_json(value) if value is not None else Response(status=404)


def _answer(simulator: AlipaySimulator, method: str, path: str, asked: dict[str, Any]) -> Any:
    match method, path:
        case "GET", "/_books":
            return simulator.books()
        case "GET", "/_keys":
            return {"public_key": simulator.public_key.public_pem}
        case "GET", "/_deliveries":
            waiting = [
                {"due_at": beijing_time(due.due_at), "url": due.url, "about": due.key, "attempt": due.attempt}
                for due in simulator.deliveries.waiting
            ]
            return {"waiting": waiting, "log": simulator.deliveries.log}
        case "POST", "/_open":
            return {"result": simulator.open(**asked) or "payable"}
        case "POST", "/_pay":
            return {"result": simulator.pay(**asked)}
        case "POST", "/_trade_pay":
            return simulator.trade_pay(**asked)
        case "POST", "/_top_up":
            return {"balance_fen": simulator.top_up(**asked)}
        case "POST", "/_refund_by_hand":
            return {"out_request_no": simulator.refund_by_hand(**asked)}
        case "POST", "/_rotate":
            return {"cert_sn": simulator.rotate_certificate().cert_sn}
        case "GET", "/_faults":
            return [
                {
                    "name": fault.name,
                    "title_zh": fault.title_zh,
                    "ends": fault.ends,
                    "needs_person": fault.needs_person,
                    "rate": simulator.faults.rates.get(fault.name, 0.0),
                    "struck": simulator.faults.struck[fault.name],
                }
                for fault in FAULTS
            ]
        case "POST", "/_faults":
            if "rate" in asked:
                simulator.faults.rate(asked["name"], float(asked["rate"]))
            else:
                simulator.faults.script(asked["name"], key=asked.get("key"), times=int(asked.get("times", 1)))
            return {}
    return None
