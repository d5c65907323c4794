"""The address on a paper prescription, made by a HIS without asking anybody. Python 3, no package needed.

python paper_token.py KEY INSTITUTION BRANCH BILL
"""

import base64
import hashlib
import hmac
import sys


def paper_token(paper_key, institution, branch, bill_id):
    named = "\n".join((institution, branch, bill_id)).encode("utf-8")
    seal = hmac.new(paper_key.encode("utf-8"), b"zhenfu-paper-1\n" + named, hashlib.sha256).digest()[:16]
    return "h1." + base64url(named) + "." + base64url(seal)


def base64url(data):
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


if __name__ == "__main__":
    sys.stdout.write(paper_token(*sys.argv[1:5]) + "\n")
