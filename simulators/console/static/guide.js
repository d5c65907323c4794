// The line that tells a newcomer what to do next.

import { $ } from "./dom.js";

const NO_MESSAGE_MILLISECONDS = 12000;

export class Guide {
  constructor() {
    $("guide-go").addEventListener("click", () => this.show($("guide-go").dataset.panel));
    for (const button of document.querySelectorAll("[data-show]")) {
      button.addEventListener("click", () => this.show(button.dataset.show));
    }
  }

  // On a small screen one panel is shown at a time.
  show(panel) {
    document.body.dataset.panel = panel;
    for (const button of document.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === panel));
    }
    this.#way();
    window.scrollTo(0, 0);
  }

  start(person) {
    this.person = person;
    this.billId = "";
    this.step = 1;
    this.isBound = false;
    this.#say("正在打开手机……");
  }

  bound(isBound, person) {
    if (person !== this.person) return;
    const before = this.isBound;
    this.isBound = isBound;
    if (this.step === 2 && isBound && !before) this.#go(3, "绑定好了：在「待缴费」里点「去缴费」。");
    if (this.step !== 1) return;
    this.#say(
      isBound
        ? `${person.name}已在手机上绑定。在「医生工作台」点「开单」。`
        : `先在手机上打开「小程序」，点「绑定」，${person.name}才收得到消息；然后点「开单」。`,
    );
  }

  issued(bill) {
    this.billId = bill.bill_id;
    this.#go(2, this.isBound ? "单已开出，看手机：消息马上就到。" : "单已开出。还没绑定，收不到消息：请在手机的小程序里点「绑定」。");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.step === 2 && !this.arrived) this.#say("消息还没到（也许开着故障）。也可以直接在手机上打开小程序。");
    }, NO_MESSAGE_MILLISECONDS);
    this.arrived = false;
  }

  messageArrived(message) {
    this.arrived = true;
    if (this.step === 2) this.#go(3, `手机收到「${message.title}」。点开消息，再点「去缴费」「确认支付」。`);
  }

  opened(billId) {
    if (!this.billId) this.billId = billId;
    if (this.step <= 3) this.#go(3, "核对金额，点「确认支付」。");
  }

  paying() {
    if (this.step <= 3) this.#go(3, "在支付窗口点「确认支付」。");
  }

  books(rows) {
    const row = rows.find((each) => each.bill_ids.includes(this.billId) && each.verdict !== "nothing");
    if (!row || this.step === 5) return;
    if (row.verdict === "agree") {
      const money = row.ours.fen > 0;
      this.#go(
        5,
        money
          ? "付好了：手机收到缴费成功消息和就诊指引，三本账一致。接着试试拨时钟、开故障。"
          : `${row.said}。再开一张试试。`,
      );
    } else if (row.verdict === "moving" && row.wechatpay.fen > 0) {
      this.#go(4, "钱已付，医院正在记账，看三本账。");
    } else if (row.verdict === "differ") {
      this.#go(4, "三本账不一致：看标红的一行。");
    }
  }

  #go(step, text) {
    this.step = step;
    this.#say(text);
  }

  // On a small screen: the way to where the next step is done.
  #way() {
    const [panel, label] = this.step === 1 ? ["desk", "去开单"] : this.step <= 3 ? ["phone", "看手机"] : ["books", "看三本账"];
    const button = $("guide-go");
    button.textContent = `${label} ›`;
    button.dataset.panel = panel;
    button.hidden = document.body.dataset.panel === panel;
  }

  #say(text) {
    $("guide-text").textContent = text;
    this.#way();
    for (const item of document.querySelectorAll("#steps li")) {
      const number = Number(item.dataset.step);
      item.classList.toggle("done", number < this.step);
      item.toggleAttribute("aria-current", number === this.step);
      if (number === this.step) item.setAttribute("aria-current", "step");
    }
  }
}
