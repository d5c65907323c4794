// The doctor's desk and the cashier's window: issue, take money, change, cancel.

import { Mistake, post } from "./api.js";
import { $, h, replace, toast, whenChanged, whenText, yuan } from "./dom.js";

export class Desk {
  constructor(listeners) {
    this.listeners = listeners; // issued(bill), changed(), printed(billId), person(key)
    this.now = new Date();
    this.open = new Set();
    this.draw = whenChanged((bills) => this.#bills(bills));
    $("issue").addEventListener("submit", (event) => this.#issue(event));
    $("person").addEventListener("change", (event) => listeners.person(event.target.value));
  }

  show(bills, person) {
    $("person-note").textContent = person.note;
    $("bills-of").textContent = person.name;
    this.draw(bills, person.key);
  }

  async #issue(event) {
    event.preventDefault();
    const form = event.target;
    const said = new FormData(form);
    const button = form.querySelector("button.primary");
    button.disabled = true;
    try {
      const bill = await post("desk/issue", {
        person: said.get("person"),
        kind: said.get("kind"),
        amount: said.get("amount"),
        insured: said.has("insured"),
        treat_first: said.has("treat_first"),
      });
      toast(`已开单：${bill.title} ${yuan(bill.to_pay_fen)} 元`);
      form.elements.amount.value = "";
      this.listeners.issued(bill);
      this.listeners.changed();
    } catch (error) {
      toast(this.#words(error));
    } finally {
      button.disabled = false;
    }
  }

  #bills(bills) {
    replace(
      $("desk-bills"),
      bills.length ? null : h("p", { class: "hint" }, "今天还没有开单"),
      h("ul", { class: "desk-list" }, bills.map((bill) => this.#bill(bill))),
    );
  }

  #bill(bill) {
    const act = (label, path, more, way = "") =>
      h(
        "button",
        { type: "button", "data-key": `${path}-${way}${bill.bill_id}`, on: { click: () => this.#act(path, { bill_id: bill.bill_id, ...more?.() }, label) } },
        label,
      );
    const amount = h("input", {
      "aria-label": `${bill.title}的新金额（元）`,
      inputmode: "decimal",
      placeholder: "新金额",
      "data-key": `amount-${bill.bill_id}`,
    });
    const actions = {
      unpaid: () => [
        act("窗口收款", "desk/window-pay"),
        act("作废", "desk/cancel"),
        h("span", { class: "change" }, amount, act("改价", "desk/change-amount", () => ({ amount: amount.value }))),
      ],
      expired: () => [act("窗口收款", "desk/window-pay"), act("作废", "desk/cancel")],
      paid: () =>
        bill.paid_by === "mobile"
          ? [
              act("窗口红冲，原路退回", "desk/window-reverse", () => ({ money_by: "us_original_route" }), "original"),
              act("窗口红冲，退现金", "desk/window-reverse", () => ({ money_by: "hospital_cash" }), "cash"),
            ]
          : [act("窗口退费红冲", "desk/window-reverse")],
    }[bill.state];
    return h(
      "li",
      { "data-desk-bill": bill.bill_id },
      h(
        "div",
        { class: "desk-line" },
        h("span", {}, h("b", {}, bill.title), h("small", {}, whenText(bill.issued_at, this.now), bill.insured ? " · 医保" : "")),
        h("span", { class: "money" }, "¥", yuan(bill.to_pay_fen)),
        h("span", { class: `chip ${bill.state}` }, bill.paid_by === "window" && bill.state === "paid" ? "窗口已收" : bill.state_text),
      ),
      h(
        "button",
        { type: "button", class: "link", "data-key": `print-${bill.bill_id}`, on: { click: () => this.listeners.printed(bill.bill_id) } },
        "看处方笺",
      ),
      actions
        ? h(
            "details",
            {
              open: this.open.has(bill.bill_id),
              on: { toggle: (event) => this.open[event.target.open ? "add" : "delete"](bill.bill_id) },
            },
            h("summary", { "data-key": `more-${bill.bill_id}` }, "窗口与改单"),
            h("div", { class: "buttons" }, actions()),
          )
        : null,
    );
  }

  async #act(path, value, label) {
    try {
      await post(path, value);
      toast(`${label}：已办`);
      this.listeners.changed();
    } catch (error) {
      toast(this.#words(error));
    }
  }

  #words(error) {
    return error instanceof Mistake ? error.message : "演示台没有回应";
  }
}
