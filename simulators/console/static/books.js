// The three books side by side, and what is still to be done.

import { $, h, replace, whenChanged, whenText, yuan } from "./dom.js";

const VERDICTS = {
  agree: ["✓", "一致"],
  moving: ["…", "进行中"],
  differ: ["!", "不一致"],
  nothing: ["–", "没有收款"],
};

const DUE = {
  inbound: "收到的通知待处理",
  payment: "向微信支付查询或关单",
  confirmation: "请医院记账",
  his_lock: "释放医院的锁定",
  payment_line: "已付的账单待安排",
  refund: "原路退款",
  message: "发消息给患者",
};

const CASES = {
  contradicting_evidence: "对方前后说法矛盾",
  wrong_amount: "收到的金额不对",
  hospital_contradicts_itself: "医院前后说法矛盾",
  refund_contradiction: "退款说法矛盾",
  refund_amount_differs: "退款金额不符",
  refund_stuck: "退款卡住，要人处理",
  refund_never_succeeds: "退款一直不成功",
  external_refund: "有人在微信商户平台退了款",
  confirmation_outcome_unknown: "医院记账结果一直不明",
  notice_for_unknown_order: "收到不认识的订单通知",
  messages_misconfigured: "消息发不出，要改设置",
  channel_misconfigured: "支付渠道设置有误",
  payment_outcome_unknown: "支付结果一直不明",
  refund_blocked: "退款被挡住",
  refund_outcome_unknown: "退款结果一直不明",
  refund_above_daily_cap: "超过单日退费上限，等两人放行",
  reversal_outcome_unknown: "医院冲销结果一直不明",
  reversal_differs: "医院冲销与申请不符",
  hospital_refund_unclear: "窗口退费没说钱由谁退",
  his_booked_without_money: "医院记了账，没有收到钱",
  line_waits: "已付的账单一直等着记账",
  lock_not_released: "医院的锁定放不掉",
  inbound_not_worked: "收到的通知处理不了",
  order_without_row: "微信支付有订单，诊付没有",
  refund_without_row: "微信支付有退款，诊付没有",
  booking_without_row: "医院有记账，诊付没有",
};

export class Books {
  constructor() {
    this.now = new Date();
    this.drawBooks = whenChanged((state) => this.#books(state));
    this.drawWork = whenChanged((state) => this.#work(state));
  }

  show({ rows, totals, ours_known, cases, due, now }) {
    this.drawBooks({ rows, totals, ours_known });
    // Times are shown to the minute, so the minute belongs to what is drawn.
    this.drawWork({ cases, due, minute: now.slice(0, 16) });
  }

  #books({ rows, totals, ours_known: known }) {
    const agree = totals.his_fen === totals.wechatpay_fen && totals.wechatpay_fen === totals.ours_fen;
    const moving = rows.some((row) => row.verdict === "moving");
    const differ = rows.some((row) => row.verdict === "differ");
    const verdict = differ ? "differ" : agree ? "agree" : moving ? "moving" : "differ";
    const total = (title, fen) => h("div", {}, h("span", {}, title), h("b", {}, "¥", yuan(fen)));
    replace(
      $("totals"),
      known
        ? h(
            "div",
            { class: `totals ${verdict}` },
            total("医院 HIS", totals.his_fen),
            total("微信支付", totals.wechatpay_fen),
            total("诊付", totals.ours_fen),
            h("p", {}, chip(verdict), { agree: "手机收款合计，三家相同", moving: "有一笔正在办，办完再对", differ: "合计对不上，见下面标红的一行" }[verdict]),
          )
        : h("p", { class: "trouble-text" }, "诊付的账本现在读不到"),
    );
    replace(
      $("books"),
      rows.length
        ? h(
            "table",
            { class: "books-table" },
            h("caption", { class: "visually-hidden" }, "每一笔订单在三家账本里的样子"),
            h(
              "thead",
              {},
              h("tr", {}, ["医院 HIS", "微信支付", "诊付"].map((title) => h("th", { scope: "col" }, title))),
            ),
            rows.map((row) => this.#row(row)),
          )
        : h("p", { class: "hint" }, "开一张单，这里就会有一行"),
    );
  }

  #row(row) {
    const cell = (entry, name) =>
      h(
        "td",
        { "data-book": name, class: row.off.includes(name) ? "off" : "" },
        h("b", { class: entry.fen === null ? "absent" : "" }, entry.fen === null ? "—" : `¥${yuan(entry.fen)}`),
        h("span", {}, entry.word),
        entry.notes.map((note) => h("small", {}, note)),
      );
    const onPhone = row.wechatpay.fen !== null || row.ours.fen !== null;
    return h(
      "tbody",
      { class: row.verdict, "data-row": row.key, "data-verdict": row.verdict, "data-bills": row.bill_ids.join(" ") },
      h(
        "tr",
        {},
        h(
          "th",
          { colspan: 3, scope: "rowgroup" },
          h(
            "span",
            { class: "row-head" },
            h("span", { class: "row-title" }, row.title),
            h("span", { class: "row-key" }, `${whenText(row.at, this.now)} · …${row.key.slice(-6)}`),
            chip(row.verdict, row.verdict === "nothing" && !onPhone ? row.his.word : undefined),
          ),
          row.verdict === "agree" || row.verdict === "nothing" ? null : h("span", { class: "row-said" }, row.said),
        ),
      ),
      row.verdict !== "nothing"
        ? [
            h("tr", {}, cell(row.his, "his"), cell(row.wechatpay, "wechatpay"), cell(row.ours, "ours")),
            row.refunds.map((refund) => this.#refund(refund)),
          ]
        : h("tr", {}, h("td", { colspan: 3, class: "only-his" }, onPhone ? row.said : `¥${yuan(row.his.fen)} · ${row.said}`)),
    );
  }

  // One refund: why, and how far each of the two that move money says it is.
  #refund(refund) {
    return h(
      "tr",
      { class: refund.same ? "refund-row" : "refund-row off", "data-refund": refund.refund_no },
      h("td", {}, h("small", {}, `退款 ¥${yuan(refund.amount_fen)}`), refund.cause ? h("small", {}, refund.cause) : null),
      h("td", {}, h("small", {}, refund.wechatpay)),
      h("td", {}, h("small", {}, refund.ours)),
    );
  }

  #work({ cases, due }) {
    if (!cases.length && !due.length) {
      replace($("work"), h("p", { class: "hint" }, "没有：该办的都办完了，也没有要人处理的事"));
      return;
    }
    replace(
      $("work"),
      h("h3", {}, "要人处理的事"),
      cases.length
        ? h(
            "ul",
            { class: "work-list cases" },
            cases.map((each) =>
              h(
                "li",
                { "data-case": each.kind },
                h("b", {}, CASES[each.kind] ?? each.kind),
                h("small", {}, `${whenText(each.opened_at, this.now)} · …${String(each.subject).slice(-6)}`),
              ),
            ),
          )
        : h("p", { class: "hint" }, "没有，全都自己办好了"),
      h("h3", {}, "系统自己会接着办的"),
      due.length
        ? h(
            "ul",
            { class: "work-list" },
            due.map((each) =>
              h(
                "li",
                { "data-due": each.kind },
                h("span", {}, DUE[each.kind] ?? each.kind),
                h("small", {}, `${each.count} 件 · 最近一件 ${whenText(each.next_due_at, this.now)}`),
              ),
            ),
          )
        : h("p", { class: "hint" }, "没有，都办完了"),
    );
  }
}

function chip(verdict, instead) {
  const [mark, word] = VERDICTS[verdict];
  return h("span", { class: `verdict ${verdict}` }, h("i", { "aria-hidden": "true" }, mark), instead ?? word);
}
