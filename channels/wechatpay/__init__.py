"""WeChat Pay, APIv3, direct merchant."""

from channels.wechatpay.channel import WechatPay
from channels.wechatpay.params import PARAMS

__all__ = ["PARAMS", "WechatPay"]
