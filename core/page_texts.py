"""Every sentence of the pages that patients open inside a chat app, in Chinese and English. Pure.

Written for somebody of seventy-five who has never paid by phone: short, one thing at a time, no word of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

PAGE: Mapping[str, Mapping[str, str]] = {
    # ------------------------------------------------------------ every page
    "care_on": {"zh": "大字版", "en": "Large type"},
    "care_off": {"zh": "标准字号", "en": "Normal type"},
    "language_other": {"zh": "English", "en": "中文"},
    "display": {"zh": "显示方式", "en": "Display"},
    "foot_phone": {
        "zh": "有问题请问收费窗口，或打医院电话 {phone}",
        "en": "Questions? Ask at the window or call {phone}",
    },
    "foot_window": {"zh": "有问题请问医院收费窗口", "en": "Questions? Ask at the cashier window"},
    "privacy": {"zh": "隐私与授权", "en": "Privacy"},
    "back": {"zh": "返回", "en": "Back"},
    "retry": {"zh": "再试一次", "en": "Try again"},
    "refresh": {"zh": "刷新", "en": "Refresh"},
    "to_bills": {"zh": "查看待缴费账单", "en": "See what is to be paid"},
    "to_paid": {"zh": "查看已缴费记录", "en": "See what has been paid"},
    "to_scan": {"zh": "扫处方上的码", "en": "Scan a prescription"},
    "colon": {"zh": "：", "en": ": "},
    # ------------------------------------------------------------ waiting
    "asking_title": {"zh": "正在向医院查询", "en": "Asking the hospital"},
    "asking_text": {
        "zh": "医院系统回应较慢，请稍等。页面会自己刷新，不用反复点。",
        "en": "The hospital's system is slow. Please wait: this page goes on by itself.",
    },
    "working_title": {"zh": "正在办理", "en": "Working on it"},
    "working_text": {
        "zh": "您的点击已经收到，正在办理，没有重复扣款。请稍等，页面会自己继续。",
        "en": "Your tap has arrived and is being worked on; you are not charged twice. This page goes on by itself.",
    },
    "go_on": {"zh": "继续", "en": "Continue"},
    # ------------------------------------------------------------ what went wrong
    "error_title": {"zh": "没有办成", "en": "That did not work"},
    "late_title": {"zh": "还在办理", "en": "Still working on it"},
    "look_again": {"zh": "再看一次", "en": "Look again"},
    "missing_title": {"zh": "没有找到", "en": "Not found"},
    "form_stale_title": {"zh": "页面已过期", "en": "This page is out of date"},
    "form_stale_text": {
        "zh": "这个页面打开太久了，没有扣款。请重新打开再试。",
        "en": "This page was open for too long; you were not charged. Please open it again.",
    },
    # ------------------------------------------------------------ signing in
    "outside_title": {"zh": "请用微信打开", "en": "Please open this in WeChat"},
    "outside_text": {
        "zh": "这个页面要在微信里打开。请打开微信，用“扫一扫”扫下面的码。"
        "在同一部手机上看到的，请先截屏，再在“扫一扫”里点“相册”选这张图。",
        "en": "This page opens inside WeChat. Open WeChat and scan this code."
        " On the same phone, take a screenshot first and choose it under Album in the scanner.",
    },
    "outside_code": {"zh": "本页地址的二维码", "en": "QR code of this page's address"},
    "outside_no_account": {
        "zh": "医院没有开通在这里缴费。请到收费窗口办理。",
        "en": "The hospital does not offer payment here. Please go to the cashier window.",
    },
    "sign_in_title": {"zh": "没有登录成功", "en": "You are not signed in"},
    "sign_in_text": {
        "zh": "微信没有确认是您本人，没有扣款。请点“再试一次”。如果页面上有“使用完整服务”，请先点它。",
        "en": "WeChat did not confirm who you are; you were not charged. Please tap Try again."
        ' If the page offers "Use full service", tap that first.',
    },
    # ------------------------------------------------------------ the paper
    "paper_title": {"zh": "处方缴费", "en": "Pay a prescription"},
    "paper_patient": {"zh": "就诊人", "en": "Patient"},
    "paper_date": {"zh": "开单日期", "en": "Issued on"},
    "factor_title": {"zh": "请先核对身份", "en": "Please confirm first"},
    "factor_both": {
        "zh": "请填写就诊人在医院登记的手机号或证件号的后4位",
        "en": "Last 4 characters of the patient's phone or document, as the hospital has it",
    },
    "factor_phone": {
        "zh": "请填写就诊人在医院登记的手机号的后4位",
        "en": "Last 4 digits of the patient's phone, as the hospital has it",
    },
    "factor_document": {
        "zh": "请填写就诊人在医院登记的证件号的后4位",
        "en": "Last 4 characters of the patient's document, as the hospital has it",
    },
    "factor_hint": {
        "zh": "4位数字或字母。身份证最后一位是X的，请填X。",
        "en": "Four digits or letters. If the ID card ends in X, type X.",
    },
    "factor_why": {
        "zh": "这样别人捡到处方，也看不到里面的内容。",
        "en": "So nobody who finds the paper can see what is on it.",
    },
    "factor_button": {"zh": "核对并查看", "en": "Confirm and view"},
    "locked_hours": {
        "zh": "输错次数太多，没有扣款。请到窗口缴费，或{hours}小时后再试。",
        "en": "Too many wrong tries; you were not charged. Please pay at the window, or try again in {hours} hours.",
    },
    "locked_tomorrow": {
        "zh": "输错次数太多，没有扣款。请到窗口缴费，或明天这个时候再试。",
        "en": "Too many wrong tries; you were not charged. Please pay at the window, or try again tomorrow at this"
        " time.",
    },
    "locked_title": {"zh": "请到窗口", "en": "Please go to the window"},
    "window_title": {"zh": "请到窗口", "en": "Please go to the window"},
    "window_text": {
        "zh": "医院没有登记可以核对的手机号或证件，不能在手机上打开这张处方，没有扣款。请带上处方到收费窗口缴费。",
        "en": "The hospital holds no phone or document to compare with, so this prescription cannot be opened here."
        " You were not charged. Please take the paper to the cashier window.",
    },
    "yours_title": {"zh": "您为这张处方付过款", "en": "Your payment for this prescription"},
    "paper_others": {"zh": "本次就诊的其他账单", "en": "Other bills of this visit"},
    "paper_others_note": {"zh": "请一张一张缴费", "en": "Please pay them one by one"},
    # ------------------------------------------------------------ consent
    "consent_title": {"zh": "先请您了解并同意", "en": "Before we begin"},
    "notice_by": {
        "zh": "谁来处理：{hospital}。技术服务由诊付提供，只按医院的要求办理。",
        "en": "By whom: {hospital}. Zhenfu provides the technology and acts only as the hospital instructs.",
    },
    "notice_what": {
        "zh": "用到什么：您的微信身份标识；就诊人的姓名、手机号和证件号（用来核对）；"
        "账单的项目、科室和金额；缴费和退款记录。其中账单属于医疗健康信息，是敏感个人信息。",
        "en": "What: your WeChat identity; the patient's name, phone and document number (to compare); items,"
        " department and amounts of bills; payments and refunds. Bills are about health and therefore sensitive.",
    },
    "notice_why": {
        "zh": "用来做什么：查账单、缴费、退款，并把结果告诉您。付款时，金额和订单号会交给微信支付。不作别的用途。",
        "en": "What for: to show bills, take payment, give refunds and tell you the result. To pay, the amount and"
        " order number go to WeChat Pay. For nothing else.",
    },
    "notice_long": {
        "zh": "保存多久：缴费记录按国家会计档案规定保存30年。扫码打开的处方，24小时后自动关闭。",
        "en": "How long: records of payment are kept for 30 years, as accounting rules demand. A scanned prescription"
        " closes by itself after 24 hours.",
    },
    "notice_withdraw": {
        "zh": "怎样撤回：随时在页面下方的“隐私与授权”里撤回。撤回后不能再用手机查看和缴费，已办完的不受影响；"
        "不同意也可以到窗口缴费。",
        "en": "How to withdraw: at any time under Privacy at the foot of each page. After that nothing is shown or paid"
        " by phone; what is done stays. You can always pay at the window instead.",
    },
    "notice_child": {
        "zh": "儿童：给14岁以下的孩子缴费，请由监护人同意。",
        "en": "Children: for a child under 14 a guardian must agree.",
    },
    "notice_contact": {"zh": "医院电话：{phone}", "en": "The hospital's phone: {phone}"},
    "consent_box": {
        "zh": "我已阅读，同意为了缴费处理就诊人的医疗健康信息",
        "en": "I have read this and agree that the patient's health information is processed for payment",
    },
    "consent_missing": {
        "zh": "请先在方框里打勾，表示同意；不同意请到窗口缴费。",
        "en": "Please tick the box to agree, or pay at the window.",
    },
    "consent_button": {"zh": "同意并继续", "en": "Agree and continue"},
    # ------------------------------------------------------------ lists
    "list_title": {"zh": "门诊缴费", "en": "Outpatient fees"},
    "tabs": {"zh": "账单", "en": "Bills"},
    "tab_unpaid": {"zh": "待缴费", "en": "To pay"},
    "tab_paid": {"zh": "已缴费", "en": "Paid"},
    "tab_count": {"zh": "（{count}）", "en": " ({count})"},
    "patients_switch": {"zh": "就诊人", "en": "Patient"},
    "nothing_unpaid": {
        "zh": "医院回复：目前没有待缴费账单。",
        "en": "The hospital says that there is nothing to pay now.",
    },
    "nothing_paid": {"zh": "还没有缴费记录。", "en": "Nothing has been paid yet."},
    "silent_list": {
        "zh": "医院系统暂时没有回应，不是没有账单。请几分钟后刷新，着急请到收费窗口。",
        "en": "The hospital's system is not answering; that does not mean that there is nothing to pay. Please refresh"
        " in a few minutes, or go to the window.",
    },
    "no_patient": {
        "zh": "您还没有绑定就诊人。可以扫处方上的码直接缴费，也可以先绑定就诊人。",
        "en": "You have not linked a patient yet. Scan the code on a prescription, or link a patient first.",
    },
    "to_bind": {"zh": "绑定就诊人", "en": "Link a patient"},
    "to_patients": {"zh": "管理就诊人", "en": "Patients"},
    "paid_others": {"zh": "您扫处方付的款", "en": "Paid by you with a prescription"},
    "paid_by": {"zh": "缴费地点", "en": "Paid"},
    "paid_at_window": {"zh": "收费窗口", "en": "at the window"},
    "paid_just_now": {"zh": "缴费成功", "en": "Paid"},
    "more_to_pay": {"zh": "还有{count}张待缴费，去看看", "en": "{count} more to pay: have a look"},
    # ------------------------------------------------------------ several bills
    "together_title": {"zh": "可以一起缴的账单", "en": "Bills you can pay together"},
    "together_note": {
        "zh": "可以全部一起缴；只缴几张，请在前面打勾。一次最多{most}张。",
        "en": "Pay all of them at once, or tick the ones to pay. At most {most} at a time.",
    },
    "together_all": {"zh": "全部缴费（{count}张）¥{amount}", "en": "Pay all {count} bills: ¥{amount}"},
    "together_these": {"zh": "这{count}张一起缴 ¥{amount}", "en": "Pay these {count} bills: ¥{amount}"},
    "together_chosen": {"zh": "只缴打勾的账单", "en": "Pay the ticked bills"},
    "together_none": {
        "zh": "还没有选账单，没有扣款。请先在要缴的账单前打勾。",
        "en": "No bill is ticked and you were not charged. Please tick the bills to pay.",
    },
    "together_others": {"zh": "其他账单", "en": "Other bills"},
    "together_pay": {"zh": "合并缴费", "en": "Pay together"},
    "together_sum": {"zh": "合计（{count}张）", "en": "Total of {count} bills"},
    "together_check": {
        "zh": "请核对姓名和合计金额。万一有账单医院没有入账，那部分钱会自动原路退回。",
        "en": "Please check name and total. If the hospital does not book one of them, its money comes back by itself.",
    },
    "together_begun": {
        "zh": "其中有账单您已经开始付款，还没有完成。请继续；如果上次选的账单不同，上次的会自动取消。",
        "en": "You have begun to pay some of these already. Please go on: an attempt for other bills than these is"
        " cancelled by itself.",
    },
    "together_others_pay": {
        "zh": "有人正在为其中的账单付款。您也可以付，先付成的算数，多付的会自动退回。",
        "en": "Somebody else is paying some of these now. You may pay too: the first counts, and anything paid twice"
        " comes back by itself.",
    },
    "together_not_all": {
        "zh": "其中有账单现在不能缴，没有扣款。请返回重新选择。",
        "en": "Some of these cannot be paid now; you were not charged. Please go back and choose again.",
    },
    # ------------------------------------------------------------ one bill
    "bill_title": {"zh": "账单", "en": "Bill"},
    "bill_amount": {"zh": "应缴金额", "en": "To pay"},
    "bill_amount_before": {"zh": "账单金额", "en": "Amount"},
    "bill_items": {"zh": "明细", "en": "Items"},
    "bill_item": {"zh": "项目", "en": "Item"},
    "bill_quantity": {"zh": "数量", "en": "Quantity"},
    "bill_price": {"zh": "金额（元）", "en": "Amount (¥)"},
    "bill_kind": {"zh": "类别", "en": "Kind"},
    "bill_department": {"zh": "科室", "en": "Department"},
    "bill_issued": {"zh": "开单时间", "en": "Issued"},
    "bill_until": {"zh": "缴费期限", "en": "Pay by"},
    "bill_status": {"zh": "状态", "en": "Status"},
    "bill_open": {"zh": "查看", "en": "View"},
    "pay_for": {"zh": "为 {name} 缴费", "en": "Paying for {name}"},
    "pay_check": {
        "zh": "请核对姓名和金额，再点下面的按钮。",
        "en": "Please check name and amount, then tap the button.",
    },
    "pay_button": {"zh": "确认缴费 ¥{amount}", "en": "Pay ¥{amount}"},
    "pay_zero": {"zh": "确认（不用付钱）", "en": "Confirm (nothing to pay)"},
    "pay_self_paid": {
        "zh": "我知道：手机支付按自费结算，医保不报销",
        "en": "I know that paying by phone is self-paid and insurance does not cover it",
    },
    "open_own": {
        "zh": "您已经开始为这张账单付款，还没有完成。",
        "en": "You have begun to pay this bill and have not finished.",
    },
    "open_own_button": {"zh": "继续付款", "en": "Continue to pay"},
    "open_other": {
        "zh": "有人正在为这张账单付款。您也可以付，先付成的算数，多付的会自动退回。",
        "en": "Somebody else is paying this bill now. You may pay too: the first counts, and anything paid twice comes"
        " back by itself.",
    },
    "closed_title": {"zh": "请重新扫处方", "en": "Please scan the prescription again"},
    "closed_text": {
        "zh": "扫处方打开的账单24小时后会自动关闭，没有扣款。要查看或缴费，请重新扫处方上的码，或先绑定就诊人。",
        "en": "A bill opened by scanning closes after 24 hours; you were not charged. To see or pay it, scan the code"
        " on the prescription again, or link the patient first.",
    },
    # ------------------------------------------------------------ paying
    "payment_title": {"zh": "缴费情况", "en": "Your payment"},
    "payment_amount": {"zh": "付款金额", "en": "Amount"},
    "payment_refunded": {"zh": "已原路退回", "en": "Refunded"},
    "payment_returning": {"zh": "正在退回", "en": "Being refunded"},
    "payment_paid_out": {"zh": "窗口已退", "en": "Given back at the window"},
    "payment_time": {"zh": "付款时间", "en": "Paid at"},
    "payment_number": {"zh": "订单号", "en": "Order number"},
    "payment_patient": {"zh": "就诊人", "en": "Patient"},
    "payment_reason": {"zh": "原因", "en": "Reason"},
    "payment_his_text": {"zh": "医院说明", "en": "The hospital says"},
    "receipt_no": {"zh": "收据号", "en": "Receipt number"},
    "guide": {"zh": "接下来请去", "en": "Where to go now"},
    "ebill": {"zh": "查看电子发票", "en": "Electronic invoice"},
    "receipt_link": {"zh": "查看收据", "en": "Receipt"},
    "sheet_button": {"zh": "打开微信支付", "en": "Open WeChat Pay"},
    "sheet_text": {
        "zh": "微信支付窗口会自己弹出；没有弹出请点按钮。请在 {until} 前付款。",
        "en": "The payment window opens by itself; if not, tap the button. Please pay before {until}.",
    },
    "sheet_no_script": {
        "zh": "您的手机没有打开网页脚本，不能弹出微信支付。请到收费窗口缴费，或换一部手机扫码。",
        "en": "Scripts are switched off on this phone, so WeChat Pay cannot open. Please go to the window or use"
        " another phone.",
    },
    "sheet_outside": {
        "zh": "请在微信里打开这个页面付款。",
        "en": "Please open this page inside WeChat to pay.",
    },
    "sheet_checking": {
        "zh": "正在向微信核对付款结果，请稍等。",
        "en": "Checking the result with WeChat. Please wait.",
    },
    "sheet_closed": {
        "zh": "您关闭了付款窗口。要付款请再点按钮，不付请点“取消这次付款”。",
        "en": "You closed the payment window. Tap the button to pay, or cancel below.",
    },
    "sheet_preparing": {
        "zh": "正在准备付款，请稍等，没有扣款。",
        "en": "Getting the payment ready. Please wait; you have not been charged.",
    },
    "sheet_over": {
        "zh": "这次付款的时间到了，正在核对结果，请稍等，页面会自己更新。如果没有付款，稍后可以重新付。",
        "en": "The time for this payment is over and its result is being checked; this page updates by itself."
        " If you have not paid, you can pay again in a moment.",
    },
    "sheet_closing": {
        "zh": "正在取消这次付款，请稍等，页面会自己更新。",
        "en": "This payment is being cancelled. Please wait; this page updates by itself.",
    },
    "cancel_button": {"zh": "取消这次付款", "en": "Cancel this payment"},
    "confirming_text": {
        "zh": "钱已经付了，正在等医院入账。请勿重复支付。页面会自己更新。",
        "en": "You have paid; the hospital is booking it. Please do not pay again. This page updates by itself.",
    },
    "returning_too_text": {
        "zh": "其中正在退回的钱会原路到账，不用办手续：一般几分钟，银行卡可能要1至3个工作日。",
        "en": "What is being refunded goes back by itself to where you paid from: usually within minutes, to a bank"
        " card within 1 to 3 working days.",
    },
    "not_paid_text": {
        "zh": "这次没有付款，没有扣款。还要不要缴，以账单为准。",
        "en": "This was not paid and you were not charged. The bill shows whether it is still to be paid.",
    },
    "again_together": {"zh": "返回这些账单", "en": "Back to these bills"},
    "again_button": {"zh": "返回账单", "en": "Back to the bill"},
    "returning_text": {
        "zh": "医院没有入账，钱正在原路退回，不用办手续。一般几分钟到账，银行卡可能要1至3个工作日。",
        "en": "The hospital did not book it. The money is on its way back by itself: usually within minutes, to a bank"
        " card within 1 to 3 working days.",
    },
    "returned_text": {
        "zh": "医院没有入账，钱已经原路退回。还要不要缴，以账单为准。",
        "en": "The hospital did not book it and the money has gone back to where you paid from. The bill shows whether"
        " it is still to be paid.",
    },
    "part_returning_text": {
        "zh": "下面有账单的钱正在原路退回，不用办手续：一般几分钟到账，银行卡可能要1至3个工作日。其余账单已缴费。",
        "en": "The money for some bills below is on its way back by itself: usually within minutes, to a bank card"
        " within 1 to 3 working days. The others are paid.",
    },
    "part_returned_text": {
        "zh": "下面有账单的钱已经退给您，其余账单已缴费。医院没有入账的还要不要缴，请看待缴费账单。",
        "en": "The money for some bills below has been given back; the others are paid. Look at what is to be paid to"
        " see whether those that the hospital did not book are still open.",
    },
    "refunding_text": {
        "zh": "医院已退费，钱正在原路退回，不用办手续。一般几分钟到账，银行卡可能要1至3个工作日。",
        "en": "The hospital has refunded this. The money is on its way back by itself: usually within minutes, to a"
        " bank card within 1 to 3 working days.",
    },
    "refunded_text": {
        "zh": "医院已退费，钱已经退给您。",
        "en": "The hospital has refunded this and given the money back.",
    },
    "checking_text": {
        "zh": "金额对不上，工作人员正在核对。钱不会丢，结果会告诉您。",
        "en": "The amounts differ and staff are checking. No money is lost; you will be told.",
    },
    "elsewhere_title": {"zh": "另一笔付款还没有结果", "en": "Another payment is still open"},
    "elsewhere_button": {"zh": "仍要继续付款", "en": "Pay anyway"},
    "changed_title": {"zh": "金额变了", "en": "The amount has changed"},
    "changed_button": {"zh": "查看新的金额", "en": "See the new amount"},
    # ------------------------------------------------------------ scanning
    "scan_title": {"zh": "扫码缴费", "en": "Scan to pay"},
    "scan_text": {
        "zh": "扫处方上的二维码或条形码，或者把条形码下面的号码填在这里。",
        "en": "Scan the code on the prescription, or type the number below the barcode.",
    },
    "scan_button": {"zh": "扫一扫", "en": "Scan"},
    "scan_label": {"zh": "处方上的号码", "en": "Number on the prescription"},
    "scan_submit": {"zh": "查找处方", "en": "Find the prescription"},
    "scan_off": {
        "zh": "医院没有开通扫处方缴费。请绑定就诊人，或到收费窗口办理。",
        "en": "The hospital does not offer payment by prescription code. Please link a patient, or go to the window.",
    },
    # ------------------------------------------------------------ binding
    "bind_title": {"zh": "绑定就诊人", "en": "Link a patient"},
    "bind_text": {
        "zh": "绑定后，不用处方也能看到待缴费账单。请按医院登记的内容填写。",
        "en": "Once linked, you see what is to be paid without the paper. Please fill in what the hospital has.",
    },
    "bind_name": {"zh": "就诊人姓名", "en": "Patient's name"},
    "bind_type": {"zh": "证件类型", "en": "Document"},
    "bind_number": {"zh": "证件号码", "en": "Document number"},
    "bind_phone": {"zh": "在医院登记的手机号", "en": "Phone that the hospital has"},
    "bind_phone_hint": {
        "zh": "会收到一条验证码短信，请拿着这部手机。",
        "en": "A code will be sent to this phone by text message.",
    },
    "bind_phone_proven": {
        "zh": "这个手机号已验证，几分钟内改姓名和证件不用再收验证码；换手机号要重新验证。",
        "en": "This phone is verified: for a few minutes no new code is needed, unless you change the phone.",
    },
    "bind_next": {"zh": "下一步：发送验证码", "en": "Next: send the code"},
    "bind_code_title": {"zh": "填写验证码", "en": "Enter the code"},
    "bind_code_sent": {
        "zh": "验证码已发到 {phone}，5分钟内有效。",
        "en": "A code was sent to {phone}. It is valid for 5 minutes.",
    },
    "bind_code": {"zh": "短信验证码（6位数字）", "en": "Code from the text message (6 digits)"},
    "bind_submit": {"zh": "完成绑定", "en": "Link"},
    "bind_again": {"zh": "重新发送验证码", "en": "Send another code"},
    "bind_no_sms": {
        "zh": "医院没有开通短信，不能在这里绑定。请用医院的微信小程序绑定，或带证件到窗口办理。"
        "扫处方上的码缴费不受影响。",
        "en": "The hospital sends no text messages, so a patient cannot be linked here. Please use the hospital's mini"
        " program or go to the window with your document. Scanning a prescription works all the same.",
    },
    "patients_title": {"zh": "就诊人", "en": "Patients"},
    "patients_none": {"zh": "还没有绑定就诊人。", "en": "No patient is linked yet."},
    "patients_who": {"zh": "谁绑定了", "en": "Who has linked this patient"},
    "patients_you": {"zh": "您自己", "en": "You"},
    "patients_since": {"zh": "{platform}，{date}绑定", "en": "{platform}, since {date}"},
    "unbind": {"zh": "解除绑定", "en": "Remove"},
    "unbind_text": {
        "zh": "解除后，您看不到{name}的账单了。已付的款不受影响。",
        "en": "You will no longer see the bills of {name}. What has been paid stays.",
    },
    "unbind_other_text": {
        "zh": "解除后，对方看不到{name}的账单了。",
        "en": "They will no longer see the bills of {name}.",
    },
    "unbind_confirm": {"zh": "确定解除", "en": "Yes, remove"},
    # ------------------------------------------------------------ privacy
    "privacy_title": {"zh": "隐私与授权", "en": "Privacy"},
    "privacy_given": {"zh": "您同意过的", "en": "What you have agreed to"},
    "privacy_none": {"zh": "目前没有生效的同意。", "en": "You have not agreed to anything at present."},
    "privacy_personal": {"zh": "查看账单和缴费（医疗健康信息）", "en": "Bills and payment (health information)"},
    "privacy_sms": {"zh": "接收短信通知", "en": "Text messages"},
    "privacy_when": {
        "zh": "{time}在{way}同意，说明版本 {version}",
        "en": "Agreed {time}, {way}, notice version {version}",
    },
    "withdraw": {"zh": "撤回同意", "en": "Withdraw"},
    "withdraw_personal_text": {
        "zh": "撤回后：解除所有就诊人，关闭打开过的处方，不再发短信。已付的款和退款照常处理。",
        "en": "Then all patients are removed, opened prescriptions are closed, and no text messages are sent. Payments"
        " and refunds go on as usual.",
    },
    "withdraw_sms_text": {"zh": "撤回后不再发短信。", "en": "Then no more text messages are sent."},
    "withdraw_confirm": {"zh": "确定撤回", "en": "Yes, withdraw"},
    "withdrawn": {"zh": "已撤回。", "en": "Withdrawn."},
    "notice_title": {"zh": "隐私说明（版本 {version}）", "en": "Privacy notice (version {version})"},
    "sms_title": {"zh": "短信通知", "en": "Text messages"},
    "sms_text": {
        "zh": "微信收不到时，缴费和退款结果发短信告诉您。不含病情和药名。",
        "en": "If WeChat cannot reach you, results of payments and refunds come by text message, without any word about"
        " illness or drugs.",
    },
    "sms_phone": {"zh": "您的手机号", "en": "Your phone"},
    "sms_box": {"zh": "我同意接收缴费通知短信", "en": "I agree to receive text messages about my payments"},
    "sms_submit": {"zh": "开通短信通知", "en": "Switch text messages on"},
    "sms_done": {"zh": "短信通知已开通。", "en": "Text messages are on."},
}

IDENTIFIER_TEXTS: Mapping[str, Mapping[str, str]] = {
    "id_card": {"zh": "居民身份证", "en": "ID card"},
    "hospital_card": {"zh": "就诊卡", "en": "Hospital card"},
    "passport": {"zh": "护照", "en": "Passport"},
    "hk_macau_permit": {"zh": "港澳居民通行证", "en": "Hong Kong / Macau permit"},
    "taiwan_permit": {"zh": "台湾居民通行证", "en": "Taiwan permit"},
    "foreign_permanent_resident": {"zh": "外国人永久居留身份证", "en": "Foreign permanent resident card"},
    "birth_certificate": {"zh": "出生医学证明", "en": "Birth certificate"},
}
"""Documents as the form names them, the most usual first."""

WAY_TEXTS: Mapping[str, Mapping[str, str]] = {
    "h5": {"zh": "公众号页面", "en": "on these pages"},
    "miniprogram": {"zh": "小程序", "en": "in the mini program"},
    "chat": {"zh": "聊天", "en": "in the chat"},
}
"""Where somebody agreed."""

NOTICE_PARTS = ("notice_by", "notice_what", "notice_why", "notice_long", "notice_withdraw", "notice_child")
"""What the privacy notice says, in this order."""


def page_text(key: str, language: str, **values: str | int) -> str:
    return PAGE[key][language if language in PAGE[key] else "zh"].format(**values)
