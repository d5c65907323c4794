// WeChat's pay sheet: who gets how much, and six digits. The password is never real: any six digits will do.

import { post } from "./api.js";
import { clockText, h, yuan } from "./dom.js";

const DIGITS = 6;
const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "", "0", "⌫"];
const HOWS = [
  ["confirm", "正常付款"],
  ["slow", "网络很慢：8 秒后才付成"],
  ["answer_late", "医院先收到通知，手机 4 秒后才知道"],
  ["notice_late", "手机马上知道，通知晚到"],
  ["fail", "付款失败"],
];
const SAID = {
  expired: "订单已过期，没有扣款。",
  closed: "订单已关闭，没有扣款。",
  wrong_payer: "不是本人的订单，没有扣款。",
  unknown: "微信支付没有这笔订单，没有扣款。",
  failed: "付款没有成功，没有扣款。",
};

export class PaySheet {
  constructor(phone) {
    this.phone = phone;
  }

  // Resolves with {result}: "paid", "already_paid", "cancelled", or why not, when the person has left the sheet.
  async ask({ app, params }) {
    let sheet;
    try {
      sheet = await post("phone/pay-sheet", { app, params });
    } catch (error) {
      await new Promise((resolve) => this.phone.dialog("不能支付", error.message, [["知道了", resolve]]));
      return { result: "refused" };
    }
    return new Promise((resolve) => this.#show(app, params, sheet, resolve));
  }

  #show(app, params, sheet, resolve) {
    let password = "";
    let working = false;
    const dots = h("p", { class: "sheet-dots", "aria-label": "支付密码" }, Array.from({ length: DIGITS }, () => h("i")));
    const note = h("p", { class: "sheet-note", role: "status" }, "演示：任意六位数字，不会动真钱");
    const how = h("select", { "aria-label": "怎么付（演示）" }, HOWS.map(([word, title]) => h("option", { value: word }, title)));

    const leave = (result) => {
      this.phone.closeOverlay();
      resolve({ result });
    };
    const pay = async (way) => {
      working = true;
      for (const button of panel.querySelectorAll("button, select")) button.disabled = true;
      panel.classList.add("paying");
      note.textContent = way === "slow" ? "网络很慢，请等 8 秒……" : "正在支付……";
      let result;
      try {
        ({ result } = await post("phone/pay", { person: this.phone.person.key, app, params, how: way, password }));
      } catch (error) {
        this.phone.dialog("支付没有完成", error.message, [["知道了", () => resolve({ result: "failed" })]]);
        return;
      }
      this.phone.happened("paid", { result });
      if (result === "cancelled") leave(result);
      else if (result === "paid" || result === "already_paid") this.#done(sheet, () => leave(result));
      else this.phone.dialog("支付没有完成", SAID[result] ?? result, [["知道了", () => resolve({ result })]]);
    };
    const press = (key) => {
      if (working) return;
      if (key === "⌫") password = password.slice(0, -1);
      else if (/^\d$/.test(key) && password.length < DIGITS) password += key;
      [...dots.children].forEach((dot, place) => dot.classList.toggle("filled", place < password.length));
      if (password.length === DIGITS) pay(how.value);
    };
    const cancel = () => {
      if (!working) pay("cancel");
    };
    const panel = h(
      "div",
      { class: "pay-sheet", role: "dialog", "aria-modal": "true", "aria-label": "微信支付" },
      h("button", { type: "button", class: "sheet-close", "aria-label": "取消支付", on: { click: cancel } }, "×"),
      h("h4", {}, "请输入支付密码"),
      h("p", { class: "sheet-payee" }, sheet.payee),
      h("p", { class: "sheet-what" }, `${sheet.description} · 请在 ${clockText(new Date(sheet.expires_at))} 前支付`),
      h("p", { class: "sheet-amount" }, h("span", {}, "¥"), yuan(sheet.amount_fen)),
      dots,
      note,
      h("p", { class: "sheet-how" }, how),
      h(
        "div",
        { class: "keypad" },
        KEYS.map((key) =>
          key
            ? h(
                "button",
                { type: "button", "data-digit": key, "data-first": key === "1", "aria-label": key === "⌫" ? "删除" : key, on: { click: () => press(key) } },
                key,
              )
            : h("span"),
        ),
      ),
    );
    panel.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT") return;
      if (/^\d$/.test(event.key)) press(event.key);
      if (event.key === "Backspace") press("⌫");
    });
    this.phone.overlay(panel, cancel);
  }

  #done(sheet, done) {
    this.phone.overlay(
      h(
        "div",
        { class: "pay-sheet pay-done", role: "dialog", "aria-modal": "true", "aria-label": "支付成功" },
        h("p", { class: "done-mark", "aria-hidden": "true" }, "✓"),
        h("p", { class: "sheet-payee" }, "支付成功"),
        h("p", { class: "sheet-amount" }, h("span", {}, "¥"), yuan(sheet.amount_fen)),
        h("p", { class: "sheet-what" }, sheet.payee),
        h("button", { type: "button", class: "mini-plain", "data-first": true, on: { click: done } }, "完成"),
      ),
      done,
    );
  }
}
