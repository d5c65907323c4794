// The clock that everybody shares, and the faults that may strike.

import { get, post } from "./api.js";
import { $, h, longDayText, replace, secondsText, toast, whenChanged } from "./dom.js";

// Good ones to begin with; the rest is below in groups.
const FIRST_ONES = [
  "wechatpay.notice_lost",
  "wechatpay.notice_duplicated",
  "wechatpay.answer_lost",
  "hospital.bill_paid_at_window_meanwhile",
  "hospital.books_slowly",
  "hospital.not_reached",
];
const MODES = [
  ["off", "关"],
  ["once", "下一次"],
  ["always", "每次"],
];

export class Control {
  constructor(changed) {
    this.changed = changed;
    this.open = new Set();
    this.drawOn = whenChanged((on) => this.#on(on));
    for (const button of $("clock-buttons").querySelectorAll("button")) {
      button.addEventListener("click", () => this.#move(Number(button.dataset.minutes), button.textContent));
    }
    $("fault-filter").addEventListener("input", () => this.#faults());
    this.#load();
  }

  tick(now) {
    $("clock-face").textContent = `${longDayText(now)} ${secondsText(now)}`;
  }

  show({ faults_on: on, offset_seconds: offset }) {
    $("clock-offset").textContent = offset ? `比真实时间快 ${spanText(offset)}` : "与真实时间相同";
    if (this.drawOn(on)) this.#load();
  }

  async #move(minutes, label) {
    await this.#do(() => post("clock", { minutes }), `时钟${label.replace("+", "前进 ")}`);
  }

  async #load() {
    try {
      this.groups = (await get("fault-catalogue")).groups;
      this.#faults();
    } catch {
      /* the next change loads them again */
    }
  }

  #on(on) {
    replace(
      $("faults-on"),
      on.length
        ? h(
            "div",
            { class: "faults-on" },
            h("b", {}, `开着 ${on.length} 个故障`),
            h("ul", {}, on.map((fault) => h("li", {}, `${fault.title}（${fault.mode === "once" ? "下一次" : "每次"}）`))),
            h("button", { type: "button", on: { click: () => this.#do(() => post("faults/clear"), "故障全部关闭") } }, "全部关闭"),
          )
        : h("p", { class: "hint" }, "现在没有故障。"),
    );
  }

  #faults() {
    if (!this.groups) return;
    const wanted = $("fault-filter").value.trim();
    const all = this.groups.flatMap((group) => group.faults.map((fault) => ({ ...fault, of: group.title })));
    const found = wanted ? all.filter((fault) => `${fault.of}${fault.title}${fault.name}`.includes(wanted)) : null;
    const group = (title, faults, key) =>
      h(
        "details",
        {
          open: this.open.has(key),
          on: { toggle: (event) => this.open[event.target.open ? "add" : "delete"](key) },
        },
        h("summary", {}, title, h("small", {}, `${faults.length} 种`)),
        faults.map((fault) => this.#fault(fault)),
      );
    replace(
      $("faults"),
      found
        ? [found.length ? null : h("p", { class: "hint" }, "没有这样的故障"), found.map((fault) => this.#fault(fault, fault.of))]
        : [
            FIRST_ONES.map((name) => all.find((fault) => fault.name === name))
              .filter(Boolean)
              .map((fault) => this.#fault(fault, fault.of)),
            this.groups.map(({ counterparty, title, faults }) => group(`${title}的全部故障`, faults, counterparty)),
          ],
    );
  }

  #fault(fault, of) {
    return h(
      "div",
      { class: "fault", role: "group", "aria-label": fault.title, "data-fault": fault.name },
      h(
        "span",
        { class: "fault-title" },
        of ? h("small", {}, of) : null,
        fault.title,
        fault.needs_person ? h("small", {}, "可能要人处理") : null,
        fault.struck ? h("small", {}, `已发生 ${fault.struck} 次`) : null,
      ),
      h(
        "span",
        { class: "modes" },
        MODES.map(([mode, label]) =>
          h(
            "button",
            {
              type: "button",
              "aria-pressed": String(fault.mode === mode),
              "data-mode": mode,
              "data-key": `${fault.name}-${mode}-${of ?? ""}`,
              on: { click: () => this.#set(fault, mode) },
            },
            label,
          ),
        ),
      ),
    );
  }

  async #set(fault, mode) {
    const said = { off: "关闭", once: "下一次发生", always: "每次发生" }[mode];
    await this.#do(() => post("faults", { name: fault.name, mode }), `${fault.title}：${said}`);
    await this.#load();
  }

  async #do(act, said) {
    try {
      await act();
      toast(said);
      this.changed();
    } catch (error) {
      toast(error.message);
    }
  }
}

function spanText(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const minutes = Math.round((seconds % 3600) / 60);
  return [days && `${days} 天`, hours && `${hours} 小时`, minutes && `${minutes} 分钟`].filter(Boolean).join(" ");
}
