"""WeChat Pay, APIv3: direct merchants, and hospitals behind a service provider."""

from channels.wechatpay.channel import WechatPay
from channels.wechatpay.params import PARAMS

__all__ = ["PARAMS", "WechatPay"]
