"""What the text message platform tells about itself: how many were sent in which hours, and which templates it knows.

Facts relied on (version 2021-01-11; cloud.tencent.com/document/api/382/5819 and its sister on SendStatusStatistics,
the published C# and Python packages):

- SendStatusStatistics: BeginTime and EndTime are text, yyyymmddhh in Shanghai, EndTime not before BeginTime, both
  hours counted; SmsSdkAppId; Limit and Offset are compulsory and 0. The answer holds
  {"SendStatusStatistics": {"FeeCount", "RequestCount", "RequestSuccessCount"}}.
- DescribeSmsTemplateList: International (0: mainland) is compulsory; TemplateIdSet holds up to 100 whole numbers;
  without it Limit (at most 100, 0 unless told) and Offset say which. The answer holds {"DescribeTemplateStatusSet":
  [{TemplateName, TemplateId, International, ReviewReply, CreateTime, TemplateContent, StatusCode}]}; StatusCode 0 is
  approved, 1 under review, -1 refused.

Not established: what is said to the id of a template that does not exist. Here it is left out of the list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from simulators.sms_rules import CallError, SmsTemplate

SHANGHAI = ZoneInfo("Asia/Shanghai")
TEMPLATES_MAX = 100
_HOUR = r"[0-9]{10}"
_STATISTICS_FIELDS = {"BeginTime": str, "EndTime": str, "SmsSdkAppId": str, "Limit": int, "Offset": int}
_TEMPLATE_FIELDS = {"International": int, "TemplateIdSet": list, "Limit": int, "Offset": int}
_COUNTS = ("FeeCount", "RequestCount", "RequestSuccessCount")


class SentHours:
    """How many messages were asked for, sent and paid for in each hour of Shanghai."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, at: datetime, statuses: Iterable[Mapping[str, Any]]) -> None:
        """The statuses of one SendSms."""
        hour = f"{at.astimezone(SHANGHAI):%Y%m%d%H}"
        for status in statuses:
            self._counts[hour, "RequestCount"] += 1
            self._counts[hour, "RequestSuccessCount"] += status["Code"] == "Ok"
            self._counts[hour, "FeeCount"] += status["Fee"]

    def answer(self, body: Mapping[str, Any], sdk_app_id: str) -> dict[str, Any]:
        """What SendStatusStatistics answers. Raises CallError."""
        _check_fields(body, _STATISTICS_FIELDS, required=tuple(_STATISTICS_FIELDS))
        if body["SmsSdkAppId"] != sdk_app_id:
            raise CallError("UnauthorizedOperation.SmsSdkAppIdVerifyFail", "SmsSdkAppId verification failed")
        begin, end = body["BeginTime"], body["EndTime"]
        if not re.fullmatch(_HOUR, begin):
            raise CallError("InvalidParameterValue.BeginTimeVerifyFail", "BeginTime is no hour")
        if not re.fullmatch(_HOUR, end) or end < begin:
            raise CallError("InvalidParameterValue.EndTimeVerifyFail", "EndTime is no hour or before BeginTime")
        found = {
            name: sum(count for (hour, each), count in self._counts.items() if each == name and begin <= hour <= end)
            for name in _COUNTS
        }
        return {"SendStatusStatistics": found}


def template_list(body: Mapping[str, Any], templates: Mapping[str, SmsTemplate]) -> dict[str, Any]:
    """What DescribeSmsTemplateList answers; every template here is for the mainland. Raises CallError."""
    _check_fields(body, _TEMPLATE_FIELDS, required=("International",))
    ids = body.get("TemplateIdSet", [])
    if not all(type(each) is int for each in ids):
        raise CallError("InvalidParameter", "The value type of parameter `TemplateIdSet` is not valid.")
    limit, offset = body.get("Limit", 0), body.get("Offset", 0)
    if body["International"] not in {0, 1} or len(ids) > TEMPLATES_MAX or not 0 <= limit <= TEMPLATES_MAX:
        raise CallError("InvalidParameterValue", "International is 0 or 1, and 100 templates are told at once")
    known = list(templates.values()) if body["International"] == 0 else []
    if ids:
        asked = {str(each) for each in ids}
        known = [each for each in known if each.template_id in asked]
    else:
        known = known[offset : offset + limit]
    return {"DescribeTemplateStatusSet": [_told(each) for each in known]}


def _told(template: SmsTemplate) -> dict[str, Any]:
    return {
        "TemplateName": f"template {template.template_id}",
        "TemplateId": int(template.template_id),
        "International": 0,
        "ReviewReply": "",
        "CreateTime": 1617379200,
        "TemplateContent": template.text,
        "StatusCode": template.status_code,
    }


def _check_fields(body: Mapping[str, Any], kinds: Mapping[str, type], *, required: Iterable[str]) -> None:
    """Raises CallError."""
    for name, value in body.items():
        if name not in kinds:
            raise CallError("UnknownParameter", f"The parameter `{name}` is not recognized.")
        if type(value) is not kinds[name]:
            raise CallError("InvalidParameter", f"The value type of parameter `{name}` is not valid.")
    for name in required:
        if name not in body:
            raise CallError("MissingParameter", f"The request is missing a required parameter `{name}`.")
